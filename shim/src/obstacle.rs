//! Recognizes programs that cannot be paged, from inside them.
//!
//! `tmem run` looks at the file of a program before it starts it (`cli/src/program.rs`).
//! Programs that a shell or the preload line starts are seen here first.

use crate::link::linker::find_late;
use core::arch::asm;
use tmem_config::looks_for_leaks;

/// Why this program cannot be paged, if so.
pub(crate) fn find() -> Option<&'static str> {
    if is_emulated() {
        return Some("it runs under valgrind, which knows no thread but the program's");
    }
    let looks = find_late(b"__asan_init")
        .or(find_late(b"__lsan_init"))
        .is_some();
    let stops = !crate::start::may_be_apart();
    if looks && stops && looks_for_leaks(|name| std::env::var_os(name)) {
        return Some(
            "its sanitizer looks for leaks, for which it stops every thread; \
             ASAN_OPTIONS=detect_leaks=0 has it look for errors only",
        );
    }
    None
}

/// Whether valgrind runs this program. It answers a request that is a sequence of
/// instructions without effect on a CPU.
fn is_emulated() -> bool {
    const RUNNING_ON_VALGRIND: usize = 0x1001;
    let question = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    let mut answer = 0usize;
    // SAFETY: a register is rotated by twice its width and another exchanged with itself.
    // valgrind writes the answer to `rdx`.
    unsafe {
        asm!("rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") question.as_ptr(), inlateout("rdx") answer, options(nostack));
    }
    answer != 0
}
