use super::*;
use std::vec;
use std::vec::Vec;

/// Tells whether a function may lend pages by its first system call.
fn lends(code: &[u8]) -> bool {
    let at = candidates(code, 0x1000).next().unwrap();
    function_makes(code, 0x1000, at).lend
}

#[test]
fn advice_is_told_from_what_lends() {
    let made = |code: &[u8]| function_makes(code, 0x1000, candidates(code, 0x1000).next().unwrap());
    // mov eax, 28; syscall; ret
    let advises = made(&[0xb8, 28, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    assert_eq!((advises.lend, advises.advise), (false, true));
    // mov eax, 278; syscall; ret
    let lends = made(&[0xb8, 0x16, 1, 0, 0, 0x0f, 0x05, 0xc3]);
    assert_eq!((lends.lend, lends.advise), (true, false));
    // mov rax, rdi; syscall; ret
    assert_eq!(made(&[0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3]), Calls::ANY);
    // mov eax, 202; syscall; ret
    assert_eq!(made(&[0xb8, 202, 0, 0, 0, 0x0f, 0x05, 0xc3]), Calls::NONE);
    assert_eq!(lends.and(advises), Calls::ANY);
}

#[test]
fn the_number_of_a_call_is_found_where_it_was_moved() {
    // mov eax, 202; syscall; ret
    assert!(!lends(&[0xb8, 202, 0, 0, 0, 0x0f, 0x05, 0xc3]));
    // mov eax, 278; syscall; ret
    assert!(lends(&[0xb8, 0x16, 1, 0, 0, 0x0f, 0x05, 0xc3]));
    // mov r8d, 202; mov eax, r8d; syscall; ret
    assert!(!lends(&[
        0x41, 0xb8, 202, 0, 0, 0, 0x44, 0x89, 0xc0, 0x0f, 0x05, 0xc3
    ]));
    // push 39; pop rax; syscall; ret
    assert!(!lends(&[0x6a, 39, 0x58, 0x0f, 0x05, 0xc3]));
    // push 54; pop rax; syscall; ret
    assert!(lends(&[0x6a, 54, 0x58, 0x0f, 0x05, 0xc3]));
    // xor eax, eax; syscall; ret
    assert!(!lends(&[0x31, 0xc0, 0x0f, 0x05, 0xc3]));
}

#[test]
fn a_number_that_is_not_known_may_lend() {
    // mov rax, rdi; syscall; ret
    assert!(lends(&[0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3]));
    // mov eax, 202; call +0; syscall; ret
    assert!(lends(&[
        0xb8, 202, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3
    ]));
    // mov eax, 202; mov al, 22; syscall; ret
    assert!(lends(&[0xb8, 202, 0, 0, 0, 0xb0, 22, 0x0f, 0x05, 0xc3]));
    // mov eax, 202; int 0x80; ret: 32-bit calls have other numbers
    assert!(lends(&[0xb8, 202, 0, 0, 0, 0xcd, 0x80, 0xc3]));
    // mov eax, 202; jmp +5; mov eax, 278; syscall; ret
    let merged = [
        0xb8, 202, 0, 0, 0, 0xeb, 5, 0xb8, 0x16, 1, 0, 0, 0x0f, 0x05, 0xc3,
    ];
    assert!(lends(&merged));
}

#[test]
fn a_number_outlives_the_end_of_a_function_in_its_middle() {
    // mov r13d, 202; jmp +3; pop r13; ret; mov eax, r13d; syscall; ret
    let code = [
        0x41, 0xbd, 202, 0, 0, 0, 0xeb, 3, 0x41, 0x5d, 0xc3, 0x44, 0x89, 0xe8, 0x0f, 0x05, 0xc3,
    ];
    assert!(!lends(&code));
}

#[test]
fn code_without_tables_is_told_from_constants() {
    let code = [
        0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01, 0xc3, 0x90,
    ]
    .repeat(20);
    assert!(is_code(&code));
    let numbers: Vec<u8> = (0..64u32)
        .flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    assert!(!is_code(&numbers));
}

#[test]
fn a_part_of_another_instruction_is_no_call() {
    // mov eax, 0x050f; ret
    assert!(!lends(&[0xb8, 0x0f, 0x05, 0, 0, 0xc3]));
    // After an invalid byte nothing is certain.
    assert!(lends(&[0x06, 0xb8, 0x0f, 0x05, 0, 0, 0xc3]));
}

/// A file, laid out in memory from address 0 as its program headers say.
struct File(Vec<u8>);

impl Memory for File {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let headers = u64_at(&self.0, 32).unwrap() as usize;
        let count = usize::from(u16::from_le_bytes([self.0[56], self.0[57]]));
        (0..count).map(|i| &self.0[headers + 56 * i..]).any(|h| {
            let [offset, vaddr, size] = [8, 16, 32].map(|f| u64_at(h, f).unwrap());
            let within = at >= vaddr && at + out.len() as u64 <= vaddr + size;
            let is = u32_at(h, 0) == Some(1) && within;
            if is {
                let from = (at - vaddr + offset) as usize;
                out.copy_from_slice(&self.0[from..from + out.len()]);
            }
            is
        })
    }
}

/// Returns the number of candidates in an object of this machine, and how many of them may
/// lend.
fn judged(path: &str) -> Option<(usize, usize)> {
    let file = File(std::fs::read(path).ok()?);
    let functions = Functions::of(&file, 0);
    let headers = u64_at(&file.0, 32)? as usize;
    let (mut all, mut lending) = (0, 0);
    for h in file.0[headers..]
        .chunks_exact(56)
        .take(usize::from(file.0[56]))
    {
        if (u32_at(h, 0)?, u32_at(h, 4)? & 1) != (1, 1) {
            continue;
        }
        let (vaddr, size) = (u64_at(h, 16)?, u64_at(h, 32)?);
        let mut code = vec![0; size as usize];
        assert!(file.read(vaddr, &mut code));
        for at in candidates(&code, vaddr) {
            all += 1;
            let made = calls(&file, functions.as_ref(), &(vaddr..vaddr + size), at);
            lending += usize::from(made.lend);
        }
    }
    Some((all, lending))
}

#[test]
fn this_machines_libraries_are_judged_by_what_they_do() {
    let libraries = "/usr/lib/x86_64-linux-gnu";
    // The C library has functions for all of these calls.
    let (all, lending) = judged(&std::format!("{libraries}/libc.so.6")).unwrap();
    assert!(all > 300 && lending >= 3, "{lending} of {all}");
    // Constants within its code look like system calls.
    assert_eq!(judged(&std::format!("{libraries}/libm.so.6")).unwrap().1, 0);
    // libgomp makes many calls by itself, none of which lends.
    if let Some((all, lending)) = judged(&std::format!("{libraries}/libgomp.so.1")) {
        assert!(all > 0 && lending == 0, "{lending} of {all}");
    }
    if let Some((_, lending)) = judged(&std::format!("{libraries}/libcrypto.so.3")) {
        assert_eq!(lending, 0);
    }
    // liburing sets up rings.
    if let Some((_, lending)) = judged(&std::format!("{libraries}/liburing.so.2")) {
        assert!(lending > 0);
    }
}
