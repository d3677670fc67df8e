//! The memory functions that compiled code calls by name, for this library alone.
//!
//! Those of the C library are found by name when the library is loaded, and a program that
//! exports functions of the same names has its own called instead: a sanitizer's look at
//! shadow memory, which the engine may have evicted. So the library brings its own, which are
//! hidden: the linker binds every call in the library to them, and nobody else sees them.
//!
//! They are assembly because a compiler makes calls of these very functions from loops that
//! look like them.

use core::arch::global_asm;

/// From this size on the processor's string instructions are faster than a loop.
const STRING: usize = 2048;

// Short blocks are copied by two accesses that may overlap. All that such a copy reads is in
// registers before anything is written, so blocks may overlap as well.
global_asm!(
    ".text",
    ".p2align 4",
    ".globl tmem_memmove",
    ".hidden tmem_memmove",
    ".type tmem_memmove, @function",
    "tmem_memmove:",
    "mov rax, rdi",
    "cmp rdx, 16",
    "jb 20f",
    "cmp rdx, 32",
    "ja 31f",
    // 16 to 32 bytes.
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + rdx - 16], xmm1",
    "ret",
    "31:",
    "cmp rdx, 64",
    "ja 12f",
    // 33 to 64 bytes.
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + rdx - 32]",
    "movups xmm3, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + rdx - 32], xmm2",
    "movups [rdi + rdx - 16], xmm3",
    "ret",
    "12:",
    // Where the target begins within the source, the copy goes down.
    "mov rcx, rdi",
    "sub rcx, rsi",
    "cmp rcx, rdx",
    "jb 15f",
    "cmp rdx, {string}",
    "jb 13f",
    // The string instruction is slow where source and target overlap.
    "neg rcx",
    "cmp rcx, rdx",
    "jb 13f",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    // Up, 64 bytes at a time. The last 64 are read first and written last.
    "13:",
    "movups xmm4, [rsi + rdx - 64]",
    "movups xmm5, [rsi + rdx - 48]",
    "movups xmm6, [rsi + rdx - 32]",
    "movups xmm7, [rsi + rdx - 16]",
    "lea r8, [rdi + rdx - 64]",
    "14:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "add rsi, 64",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + 32], xmm2",
    "movups [rdi + 48], xmm3",
    "add rdi, 64",
    "cmp rdi, r8",
    "jb 14b",
    "movups [r8], xmm4",
    "movups [r8 + 16], xmm5",
    "movups [r8 + 32], xmm6",
    "movups [r8 + 48], xmm7",
    "ret",
    // Down, 64 bytes at a time. The first 64 are read first and written last.
    "15:",
    "movups xmm4, [rsi]",
    "movups xmm5, [rsi + 16]",
    "movups xmm6, [rsi + 32]",
    "movups xmm7, [rsi + 48]",
    "16:",
    "movups xmm0, [rsi + rdx - 16]",
    "movups xmm1, [rsi + rdx - 32]",
    "movups xmm2, [rsi + rdx - 48]",
    "movups xmm3, [rsi + rdx - 64]",
    "movups [rdi + rdx - 16], xmm0",
    "movups [rdi + rdx - 32], xmm1",
    "movups [rdi + rdx - 48], xmm2",
    "movups [rdi + rdx - 64], xmm3",
    "sub rdx, 64",
    "cmp rdx, 64",
    "ja 16b",
    "movups [rdi], xmm4",
    "movups [rdi + 16], xmm5",
    "movups [rdi + 32], xmm6",
    "movups [rdi + 48], xmm7",
    "ret",
    // Fewer than 16 bytes.
    "20:",
    "cmp edx, 8",
    "jb 21f",
    "mov rcx, [rsi]",
    "mov r8, [rsi + rdx - 8]",
    "mov [rdi], rcx",
    "mov [rdi + rdx - 8], r8",
    "ret",
    "21:",
    "cmp edx, 4",
    "jb 22f",
    "mov ecx, [rsi]",
    "mov r8d, [rsi + rdx - 4]",
    "mov [rdi], ecx",
    "mov [rdi + rdx - 4], r8d",
    "ret",
    "22:",
    "cmp edx, 1",
    "jb 24f",
    "je 23f",
    "movzx ecx, word ptr [rsi]",
    "movzx r8d, byte ptr [rsi + rdx - 1]",
    "mov [rdi], cx",
    "mov [rdi + rdx - 1], r8b",
    "ret",
    "23:",
    "movzx ecx, byte ptr [rsi]",
    "mov [rdi], cl",
    "24:",
    "ret",
    ".size tmem_memmove, . - tmem_memmove",
    string = const STRING,
);

global_asm!(
    ".text",
    ".p2align 4",
    ".globl tmem_memset",
    ".hidden tmem_memset",
    ".type tmem_memset, @function",
    "tmem_memset:",
    "mov rax, rdi",
    "movzx esi, sil",
    "movabs rcx, 0x0101010101010101",
    "imul rsi, rcx",
    "cmp rdx, 16",
    "jb 14f",
    "movq xmm0, rsi",
    "punpcklqdq xmm0, xmm0",
    "cmp rdx, 32",
    "ja 31f",
    "movups [rdi], xmm0",
    "movups [rdi + rdx - 16], xmm0",
    "ret",
    "31:",
    "cmp rdx, {string}",
    "jae 13f",
    // 32 bytes at a time. The last 32 are written by themselves.
    "lea r8, [rdi + rdx - 32]",
    "12:",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm0",
    "add rdi, 32",
    "cmp rdi, r8",
    "jb 12b",
    "movups [r8], xmm0",
    "movups [r8 + 16], xmm0",
    "ret",
    "13:",
    "mov r8, rdi",
    "mov rcx, rdx",
    "mov eax, esi",
    "rep stosb",
    "mov rax, r8",
    "ret",
    // Fewer than 16 bytes.
    "14:",
    "cmp edx, 8",
    "jb 15f",
    "mov [rdi], rsi",
    "mov [rdi + rdx - 8], rsi",
    "ret",
    "15:",
    "cmp edx, 4",
    "jb 16f",
    "mov [rdi], esi",
    "mov [rdi + rdx - 4], esi",
    "ret",
    "16:",
    "test edx, edx",
    "jz 17f",
    "mov [rdi], sil",
    "mov [rdi + rdx - 1], sil",
    "shr edx, 1",
    "mov [rdi + rdx], sil",
    "17:",
    "ret",
    ".size tmem_memset, . - tmem_memset",
    string = const STRING,
);

global_asm!(
    ".text",
    ".p2align 4",
    ".globl tmem_memcmp",
    ".hidden tmem_memcmp",
    ".type tmem_memcmp, @function",
    "tmem_memcmp:",
    "xor ecx, ecx",
    "cmp rdx, 16",
    "jb 13f",
    // 64 bytes at a time, as long as they are equal.
    "lea r8, [rdx - 64]",
    "cmp rdx, 64",
    "jb 30f",
    "9:",
    "movups xmm0, [rdi + rcx]",
    "movups xmm1, [rsi + rcx]",
    "movups xmm2, [rdi + rcx + 16]",
    "movups xmm3, [rsi + rcx + 16]",
    "movups xmm4, [rdi + rcx + 32]",
    "movups xmm5, [rsi + rcx + 32]",
    "movups xmm6, [rdi + rcx + 48]",
    "movups xmm7, [rsi + rcx + 48]",
    "pcmpeqb xmm0, xmm1",
    "pcmpeqb xmm2, xmm3",
    "pcmpeqb xmm4, xmm5",
    "pcmpeqb xmm6, xmm7",
    "pand xmm0, xmm2",
    "pand xmm4, xmm6",
    "pand xmm0, xmm4",
    "pmovmskb eax, xmm0",
    "cmp eax, 0xffff",
    "jne 30f",
    "add rcx, 64",
    "cmp rcx, r8",
    "jbe 9b",
    // 16 bytes at a time. The last 16 are compared by themselves.
    "30:",
    "lea r8, [rdx - 16]",
    "cmp rcx, r8",
    "cmova rcx, r8",
    "31:",
    "movups xmm0, [rdi + rcx]",
    "movups xmm1, [rsi + rcx]",
    "pcmpeqb xmm0, xmm1",
    "pmovmskb eax, xmm0",
    "xor eax, 0xffff",
    "jnz 12f",
    "cmp rcx, r8",
    "je 15f",
    "add rcx, 16",
    "cmp rcx, r8",
    "cmova rcx, r8",
    "jmp 31b",
    "12:",
    "bsf eax, eax",
    "add rcx, rax",
    "jmp 14f",
    "13:",
    "cmp rcx, rdx",
    "je 15f",
    "mov al, [rdi + rcx]",
    "cmp al, [rsi + rcx]",
    "jne 14f",
    "inc rcx",
    "jmp 13b",
    // The first bytes that differ.
    "14:",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx ecx, byte ptr [rsi + rcx]",
    "sub eax, ecx",
    "ret",
    "15:",
    "xor eax, eax",
    "ret",
    ".size tmem_memcmp, . - tmem_memcmp",
);

global_asm!(
    ".text",
    ".p2align 4",
    ".globl tmem_strlen",
    ".hidden tmem_strlen",
    ".type tmem_strlen, @function",
    "tmem_strlen:",
    "mov rax, -1",
    "31:",
    "inc rax",
    "cmp byte ptr [rdi + rax], 0",
    "jne 31b",
    "ret",
    ".size tmem_strlen, . - tmem_strlen",
);

// Tests leave the names to the C library.
#[cfg(not(test))]
global_asm!(
    ".hidden memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".set memcpy, tmem_memmove",
    ".set memmove, tmem_memmove",
    ".set memset, tmem_memset",
    ".set memcmp, tmem_memcmp",
    ".set bcmp, tmem_memcmp",
    ".set strlen, tmem_strlen",
);

#[cfg(test)]
mod tests {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        fn tmem_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
        fn tmem_memset(at: *mut u8, value: c_int, len: usize) -> *mut u8;
        fn tmem_memcmp(one: *const u8, other: *const u8, len: usize) -> c_int;
        fn tmem_strlen(text: *const c_char) -> usize;
    }

    const ROOM: usize = 3 * super::STRING;

    /// Every length at which the code takes another way, and those beside it.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..=300).chain(super::STRING - 70..super::STRING + 70)
    }

    fn bytes() -> Vec<u8> {
        (0..ROOM).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn blocks_are_moved_whatever_they_overlap() {
        for len in lengths() {
            for (from, to) in [
                (0, ROOM - len),
                (ROOM - len, 0),
                (7, 7),
                (0, 1),
                (1, 0),
                (3, 20),
                (20, 3),
                (65, 0),
                (0, 65),
                (len / 2, 0),
                (0, len / 2),
            ] {
                let mut expected = bytes();
                expected.copy_within(from..from + len, to);
                let mut got = bytes();
                let at = got.as_mut_ptr();
                // SAFETY: both blocks lie within the vector.
                let end = unsafe { tmem_memmove(at.add(to), at.add(from), len) };
                // SAFETY: within the vector.
                assert_eq!(end, unsafe { at.add(to) });
                assert_eq!(got, expected, "{len} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn blocks_are_filled_and_nothing_beside_them() {
        for len in lengths() {
            for at in [0, 1, 15, ROOM - len] {
                let mut expected = bytes();
                expected[at..at + len].fill(0xa5);
                let mut got = bytes();
                // SAFETY: the block lies within the vector. Only the low byte counts.
                unsafe { tmem_memset(got.as_mut_ptr().add(at), 0x7a5, len) };
                assert_eq!(got, expected, "{len} bytes at {at}");
            }
        }
    }

    #[test]
    fn blocks_are_compared_by_the_first_byte_that_differs() {
        for len in lengths() {
            let one = bytes();
            let same = bytes();
            // SAFETY: each block lies within its vector.
            let got = unsafe { tmem_memcmp(one.as_ptr(), same.as_ptr(), len) };
            assert_eq!(got, 0, "{len} bytes");
            for at in [0, len / 2, len.saturating_sub(1), len] {
                let mut other = bytes();
                other[at] = other[at].wrapping_add(0x81);
                other[at + 1] = other[at + 1].wrapping_sub(1);
                let expected = one[..len].cmp(&other[..len]) as c_int;
                // SAFETY: as above.
                let got = unsafe { tmem_memcmp(one.as_ptr(), other.as_ptr(), len) };
                assert_eq!(got.signum(), expected, "{len} bytes, {at} differs");
            }
        }
    }

    #[test]
    fn texts_are_measured() {
        for len in 0..40 {
            let mut text = vec![b'x'; len];
            text.push(0);
            // SAFETY: it ends with a zero.
            assert_eq!(unsafe { tmem_strlen(text.as_ptr().cast()) }, len);
        }
    }
}
