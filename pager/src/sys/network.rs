//! Whether the program has left the network namespace from which servers are reached.

use super::roots;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

/// The namespace of the engine that connects to servers for this one, or 0 if it is not known.
/// Forked children have it too.
static HOME: AtomicU32 = AtomicU32::new(0);

/// Notes that this engine reaches servers from its own namespace. Called before the program can
/// have left it.
pub fn begin() {
    if HOME.load(Relaxed) == 0 {
        HOME.store(own().unwrap_or(0), Relaxed);
    }
}

/// Tells whether this engine is in another namespace, as far as is known.
pub fn is_left() -> bool {
    let home = HOME.load(Relaxed);
    home != 0 && own().is_some_and(|own| own != home)
}

fn own() -> Option<u32> {
    roots::inode(c"thread-self/ns/net").map(|inode| inode as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_left_only_if_another_is_known() {
        roots::open_missing();
        assert!(!is_left());
        begin();
        assert!(HOME.load(Relaxed) != 0 && !is_left());
        HOME.fetch_add(1, Relaxed);
        assert!(is_left());
        HOME.store(0, Relaxed);
    }
}
