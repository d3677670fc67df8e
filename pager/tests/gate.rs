//! Runs every interleaving of a gate's threads.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}
#[path = "../src/gate.rs"]
#[allow(dead_code)]
mod gate;

use atomic::AtomicU32;
use gate::Gate;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Threads inside the gate read, and the thread that has shut it writes. Loom fails if both
/// happen at once.
#[test]
fn who_has_shut_the_gate_is_alone() {
    loom::model(|| {
        let shared = Arc::new((Gate(AtomicU32::new(0)), UnsafeCell::new(0)));
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    if shared.0.enter() {
                        // SAFETY: loom checks this.
                        shared.1.with(|it| unsafe { *it });
                        shared.0.leave();
                    }
                })
            })
            .collect();
        shared.0.shut();
        if shared.0.is_empty() {
            // SAFETY: as above.
            shared.1.with_mut(|it| unsafe { *it += 1 });
        }
        shared.0.open();
        for walker in walkers {
            walker.join().unwrap();
        }
        assert!(shared.0.is_empty() && shared.0.enter());
    });
}
