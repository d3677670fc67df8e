//! Decodes a function and follows constants through its registers, to find the numbers of
//! its system calls.

use super::Calls;
use alloc::vec;
use alloc::vec::Vec;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedRegister,
};

/// Registers that a called function may change.
const CHANGED_BY_CALLS: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// Tells whether bytes without an unwind table are code. Constants that look like a call
/// are soon followed by bytes that no program can execute.
pub(super) fn is_code(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let mut left = bytes.len();
    decoder.iter().all(|instruction| {
        left -= instruction.len();
        // The last instruction may be cut off.
        left == 0 || !(instruction.is_invalid() || instruction.is_privileged())
    })
}

/// Returns the calls that a function beginning at `start` may make by an instruction at
/// `at`.
pub(super) fn function_makes(code: &[u8], start: u64, at: u64) -> Calls {
    let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let code: Vec<Instruction> = decoder.into_iter().collect();
    let Ok(call) = code.binary_search_by_key(&at, Instruction::ip) else {
        // The bytes are part of another instruction, unless there is data in the code, or a
        // jump into the middle of it.
        let is_part = code.iter().all(|i| is_sound(&code, i));
        return if is_part { Calls::NONE } else { Calls::ANY };
    };
    match code[call].mnemonic() {
        Mnemonic::Syscall => {}
        Mnemonic::Sysenter | Mnemonic::Int => return Calls::ANY,
        _ => return Calls::NONE,
    }
    let number =
        Flow::through(&code).and_then(|flow| flow.before[call].as_ref()?.of(Register::RAX));
    number.map_or(Calls::ANY, Calls::of)
}

/// Tells whether an instruction is valid, and jumps only to other instructions of this
/// code.
fn is_sound(code: &[Instruction], instruction: &Instruction) -> bool {
    !instruction.is_invalid() && jumps_to(code, instruction).is_ok()
}

/// Returns the place in `code` that an instruction jumps to, if it is known and within the
/// function.
///
/// # Errors
/// The target is not the start of an instruction.
fn jumps_to(code: &[Instruction], instruction: &Instruction) -> Result<Option<usize>, usize> {
    let jumps = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
    );
    let end = code.last().map_or(0, Instruction::next_ip);
    let target = instruction.near_branch_target();
    if !jumps || !(code[0].ip()..end).contains(&target) {
        return Ok(None);
    }
    code.binary_search_by_key(&target, Instruction::ip)
        .map(Some)
}

/// The register contents before each instruction of a function, for all ways that lead
/// there. `None` while no way is known.
struct Flow {
    before: Vec<Option<Constants>>,
    /// Instructions whose `before` has changed.
    changed: Vec<usize>,
}

impl Flow {
    /// Follows all ways through `code`. Returns `None` if that is impossible.
    fn through(code: &[Instruction]) -> Option<Flow> {
        let mut flow = Flow {
            before: vec![None; code.len()],
            changed: Vec::new(),
        };
        let mut factory = InstructionInfoFactory::new();
        for entry in 0..code.len() {
            // An instruction that no known way leads to is reached by a jump table or an
            // exception, unless it only fills a gap.
            let is_entry = entry == 0 || flow.before[entry].is_none() && !fills(&code[entry]);
            if is_entry {
                flow.arrive(entry, &Constants::default());
            }
            while let Some(at) = flow.changed.pop() {
                let instruction = &code[at];
                if instruction.is_invalid() {
                    return None;
                }
                let Some(mut constants) = flow.before[at] else {
                    continue;
                };
                constants.follow(instruction, factory.info(instruction).used_registers());
                if let Some(target) = jumps_to(code, instruction).ok()? {
                    flow.arrive(target, &constants);
                }
                let goes_on = !matches!(
                    instruction.flow_control(),
                    FlowControl::UnconditionalBranch
                        | FlowControl::IndirectBranch
                        | FlowControl::Return
                        | FlowControl::Exception
                );
                if goes_on && at + 1 < code.len() {
                    flow.arrive(at + 1, &constants);
                }
            }
        }
        Some(flow)
    }

    /// Merges the constants of one way to `at`.
    fn arrive(&mut self, at: usize, constants: &Constants) {
        let before = &mut self.before[at];
        let merged = before.as_ref().map_or(*constants, |b| b.in_both(constants));
        if *before != Some(merged) {
            *before = Some(merged);
            self.changed.push(at);
        }
    }
}

/// Tells whether an instruction only fills a gap.
fn fills(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
}

/// Constants in registers: the lower 32 bits, which are all that the kernel uses of a
/// call's number.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Constants {
    known: [Option<u32>; 16],
    /// The constant that was pushed last.
    pushed: Option<u32>,
}

impl Constants {
    fn of(&self, register: Register) -> Option<u32> {
        *self.known.get(general(register)?)?
    }

    fn set(&mut self, register: Register, value: Option<u32>) {
        if let Some(place) = general(register).and_then(|at| self.known.get_mut(at)) {
            *place = value;
        }
    }

    fn in_both(&self, other: &Constants) -> Constants {
        let both = |a: Option<u32>, b| a.filter(|_| a == b);
        Constants {
            known: core::array::from_fn(|i| both(self.known[i], other.known[i])),
            pushed: both(self.pushed, other.pushed),
        }
    }

    /// Applies an instruction that uses the registers `used`.
    fn follow(&mut self, instruction: &Instruction, used: &[UsedRegister]) {
        let value = self.moved(instruction);
        if instruction.mnemonic() == Mnemonic::Call {
            CHANGED_BY_CALLS.iter().for_each(|r| self.set(*r, None));
        }
        for used in used {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
                self.set(used.register(), None);
            }
        }
        if value.is_some() {
            self.set(instruction.op0_register(), value);
        }
        match instruction.mnemonic() {
            Mnemonic::Push => self.pushed = immediate(instruction, 0),
            Mnemonic::Pop | Mnemonic::Call => self.pushed = None,
            _ => {}
        }
    }

    /// Returns the constant that an instruction moves into its first operand, if that is a
    /// register.
    fn moved(&self, instruction: &Instruction) -> Option<u32> {
        if instruction.op0_kind() != OpKind::Register || instruction.op0_register().size() < 4 {
            return None;
        }
        let from = (instruction.op1_kind() == OpKind::Register).then(|| instruction.op1_register());
        match (instruction.mnemonic(), from) {
            (Mnemonic::Mov, Some(from)) => self.of(from),
            (Mnemonic::Mov, None) => immediate(instruction, 1),
            (Mnemonic::Xor, Some(from)) => (from == instruction.op0_register()).then_some(0),
            (Mnemonic::Pop, _) => self.pushed,
            _ => None,
        }
    }
}

/// Returns the lower 32 bits of the operand `index`, if it is a constant.
fn immediate(instruction: &Instruction, index: u32) -> Option<u32> {
    instruction
        .try_immediate(index)
        .ok()
        .map(|value| value as u32)
}

/// Returns the number of the general register that `register` is, or is a part of.
fn general(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}
