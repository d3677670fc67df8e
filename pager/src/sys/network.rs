//! Whether a forked child may be unable to reach the servers that its parent's engine reaches.

use super::roots;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};

/// The namespace of the engine that connects to servers for this one, or 0 if it is not known.
/// Forked children have it too.
static HOME: AtomicU32 = AtomicU32::new(0);

/// The program, or one that it was forked from, has restricted itself by rules of Landlock.
static RESTRICTED: AtomicBool = AtomicBool::new(false);

/// Notes that rules of Landlock restrict the program from now on. They may refuse connections,
/// which the kernel does not tell before one is made.
pub fn restrict() {
    RESTRICTED.store(true, Relaxed);
}

/// Notes that this engine reaches servers from its own namespace. Called before the program can
/// have left it.
pub fn begin() {
    if HOME.load(Relaxed) == 0 {
        HOME.store(own().unwrap_or(0), Relaxed);
    }
}

/// Tells whether this engine may be unable to reach servers: it is in another namespace, as
/// far as is known, or rules of Landlock restrict it.
pub fn is_left() -> bool {
    let home = HOME.load(Relaxed);
    RESTRICTED.load(Relaxed) || home != 0 && own().is_some_and(|own| own != home)
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
