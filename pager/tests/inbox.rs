//! Runs every interleaving of threads that add to an inbox and of the thread that takes
//! from it.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
}
#[path = "../src/inbox.rs"]
#[allow(dead_code)]
mod inbox;

use atomic::{AtomicU32, AtomicU64, AtomicUsize};
use inbox::{Inbox, Message, Node};
use loom::sync::Arc;
use loom::thread;

fn inbox<const N: usize>() -> Inbox<N> {
    Inbox {
        last: AtomicU32::new(0),
        free: AtomicU64::new(0),
        used: AtomicU32::new(0),
        nodes: std::array::from_fn(|_| Node {
            before: AtomicU32::new(0),
            words: std::array::from_fn(|_| AtomicUsize::new(0)),
        }),
    }
}

/// Returns the message for a value. Its words belong together.
fn message(value: usize) -> Message {
    [value, value + 100, value + 200]
}

fn taken<const N: usize>(inbox: &Inbox<N>) -> Vec<usize> {
    let mut taken = Vec::new();
    inbox.take(|words| {
        assert_eq!(words, message(words[0]));
        taken.push(words[0]);
    });
    taken.reverse();
    taken
}

/// Each thread adds two messages. There is room for all of them only if nodes are used
/// again. Each message is taken once, in the order in which its thread added it.
#[test]
fn what_is_added_is_taken_once_and_in_order() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let inbox = Arc::new(inbox::<2>());
        let adders: Vec<_> = [1, 3]
            .map(|first| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || {
                    let mut added = Vec::new();
                    for value in [first, first + 1] {
                        if inbox.add(message(value)) {
                            added.push(value);
                        }
                    }
                    added
                })
            })
            .into_iter()
            .collect();
        let mut seen = taken(&inbox);
        seen.extend(taken(&inbox));
        let added: Vec<Vec<usize>> = adders.into_iter().map(|a| a.join().unwrap()).collect();
        seen.extend(taken(&inbox));
        for (of_one, values) in added.iter().zip([[1, 2], [3, 4]]) {
            let seen: Vec<usize> = seen
                .iter()
                .copied()
                .filter(|v| values.contains(v))
                .collect();
            assert_eq!(seen, *of_one);
        }
        // All nodes are free now.
        assert!(inbox.add(message(5)) && inbox.add(message(6)) && !inbox.add(message(7)));
        assert_eq!(taken(&inbox), [5, 6]);
    });
}
