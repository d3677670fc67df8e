//! What the artefacts are linked with: RDMA's libraries are opened when they are
//! used, so that everything starts where they are missing.

use std::process::Command;
use tmem_tests::{artefacts, software};

#[test]
fn nothing_is_linked_with_a_library_of_rdma() {
    let ldd = software::find("ldd", "libc-bin");
    for artefact in [artefacts::tmem(), artefacts::memserver(), artefacts::shim()] {
        let output = Command::new(&ldd).arg(&artefact).output();
        let output = output.expect("ldd can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("libc.so"), "{}: {text}", artefact.display());
        for name in ["ibverbs", "rdmacm"] {
            assert!(!text.contains(name), "{}: {text}", artefact.display());
        }
    }
}
