//! Without libraries or devices, the errors say what is missing.

use std::time::Duration;
use tmem_verbs::{Connection, Error, Limits, Listener, available};

/// One line, with what to do.
fn check(error: &Error) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    match error {
        Error::Library { name, .. } => {
            assert!(text.contains(name), "{text}");
            assert!(text.contains("apt-get install libibverbs1 librdmacm1 ibverbs-providers"));
        }
        Error::NoDevice => assert!(text.starts_with("no RDMA device"), "{text}"),
        Error::Manager(_) => assert!(text.contains("rdma_ucm"), "{text}"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_missing_is_said() {
    let Err(error) = available() else {
        return; // There is a device.
    };
    check(&error);

    let addr = "127.0.0.1:0".parse().unwrap();
    check(&Listener::bind(addr, 1).unwrap_err());
    let limits = Limits {
        sends: 1,
        receives: 1,
        inline: 0,
        reads: 0,
    };
    check(&Connection::connect(addr, Duration::from_secs(1), &limits, &[]).unwrap_err());
}
