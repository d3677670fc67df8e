//! Structures and codes of the ioctls.
//!
//! They are defined here, because the features that the engine depends on (MOVE, POISON)
//! are newer than the headers and crates of the distributions that it runs on. The layouts
//! are those of `linux/userfaultfd.h`. The assertions below check their sizes, which the
//! request codes contain.

use rustix::ioctl::{self, Opcode};

pub(super) const API_VERSION: u64 = 0xAA;
pub(super) const COPY_DONTWAKE: u64 = 1 << 0;
pub(super) const ZEROPAGE_DONTWAKE: u64 = 1 << 0;
pub(super) const WP_PROTECT: u64 = 1 << 0;
pub(super) const WP_DONTWAKE: u64 = 1 << 1;
pub(super) const MOVE_DONTWAKE: u64 = 1 << 0;
pub(super) const MOVE_ALLOW_SRC_HOLES: u64 = 1 << 1;

#[repr(C)]
#[derive(Default)]
pub(super) struct ApiArg {
    pub(super) api: u64,
    pub(super) features: u64,
    pub(super) ioctls: u64,
}

#[repr(C)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

#[repr(C)]
pub(super) struct RegisterArg {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) ioctls: u64,
}

/// Argument of COPY and MOVE, which have the same form.
#[repr(C)]
pub(super) struct TransferArg {
    pub(super) dst: u64,
    pub(super) src: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) done: i64,
}

#[repr(C)]
pub(super) struct ZeropageArg {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) done: i64,
}

#[repr(C)]
pub(super) struct WriteProtectArg {
    pub(super) range: Range,
    pub(super) mode: u64,
}

#[repr(C)]
pub(super) struct PoisonArg {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) updated: i64,
}

pub(super) const fn iowr<T>(nr: u8) -> Opcode {
    ioctl::opcode::read_write::<T>(0xAA, nr)
}

pub(super) const IOC_NEW: Opcode = ioctl::opcode::none(0xAA, 0x00);
pub(super) const IOC_API: Opcode = iowr::<ApiArg>(0x3F);
pub(super) const IOC_REGISTER: Opcode = iowr::<RegisterArg>(0x00);
pub(super) const IOC_UNREGISTER: Opcode = ioctl::opcode::read::<Range>(0xAA, 0x01);
pub(super) const IOC_WAKE: Opcode = ioctl::opcode::read::<Range>(0xAA, 0x02);
pub(super) const IOC_COPY: Opcode = iowr::<TransferArg>(0x03);
pub(super) const IOC_ZEROPAGE: Opcode = iowr::<ZeropageArg>(0x04);
pub(super) const IOC_MOVE: Opcode = iowr::<TransferArg>(0x05);
pub(super) const IOC_WRITEPROTECT: Opcode = iowr::<WriteProtectArg>(0x06);
pub(super) const IOC_POISON: Opcode = iowr::<PoisonArg>(0x08);

const _: () = {
    assert!(size_of::<ApiArg>() == 24);
    assert!(size_of::<RegisterArg>() == 32);
    assert!(size_of::<TransferArg>() == 40);
    assert!(size_of::<WriteProtectArg>() == 24);
    assert!(size_of::<PoisonArg>() == 32);
    assert!(IOC_API == 0xC018_AA3F);
    assert!(IOC_MOVE == 0xC028_AA05);
    assert!(IOC_COPY == 0xC028_AA03);
    assert!(IOC_UNREGISTER == 0x8010_AA01);
    assert!(IOC_WAKE == 0x8010_AA02);
    assert!(size_of::<super::RawMsg>() == 32);
};
