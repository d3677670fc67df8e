//! Relocates this library before the dynamic linker has done so.

use core::arch::naked_asm;

/// Fills in the addresses of this library's own functions and data where the dynamic linker
/// has not done so yet, by which compiled code calls them. It fills in the same again later.
/// Changes `rax`, `rcx`, `rdx`, `rsi`, `r8` and `r9` only.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn relocate() {
    const DT_RELA: u64 = 7;
    const DT_RELACOUNT: u64 = 0x6fff_fff9;
    naked_asm!(
        "lea rax, [rip + __ehdr_start]",
        "lea rcx, [rip + _DYNAMIC]",
        "xor esi, esi",
        "xor edx, edx",
        // rsi: the table; rdx: how many of its entries are for addresses of the library's
        // own, which come first.
        "2:",
        "mov r8, [rcx]",
        "mov r9, [rcx + 8]",
        "add rcx, 16",
        "test r8, r8",
        "jz 4f",
        "cmp r8, {rela}",
        "cmove rsi, r9",
        "cmp r8, {count}",
        "cmove rdx, r9",
        "jmp 2b",
        "4:",
        "test rsi, rsi",
        "jz 7f",
        // The dynamic linker may have made an address of the offset already.
        "cmp rsi, rax",
        "jae 5f",
        "add rsi, rax",
        // Each entry: where, what for, and what is to be added to the base.
        "5:",
        "test rdx, rdx",
        "jz 7f",
        "mov r8, [rsi]",
        "mov r9, [rsi + 16]",
        "add r9, rax",
        "mov [rax + r8], r9",
        "add rsi, 24",
        "dec rdx",
        "jmp 5b",
        "7:",
        "ret",
        rela = const DT_RELA,
        count = const DT_RELACOUNT,
    )
}
