//! An assembler for the instructions that generated code is made of.
//!
//! Encodings are those of Intel's Software Developer's Manual, volume 2: the EVEX prefix (2.7), whose
//! displacements of one byte count in operands (2.7.5), and ModR/M (2.1.5).

/// A general register, by its number. Those that the System V calling convention lets a function
/// change, but for the stack's; none of them is one that needs a byte more as a base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
}

/// One of 32 vector registers of sixteen floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Vector(pub(super) u8);

/// A place in memory, so many bytes behind the address in a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) base: Register,
    pub(super) offset: i32,
}

/// The bytes of a vector, and of a float.
pub(super) const VECTOR: i32 = 64;
pub(super) const FLOAT: i32 = 4;

/// Whether a place so far behind a base is told in one byte, in units of an operand.
fn is_near(offset: i32, unit: i32) -> bool {
    offset % unit == 0 && i8::try_from(offset / unit).is_ok()
}

/// Whether a vector so many bytes behind a base is told in one byte.
pub(super) fn is_near_vector(offset: i32) -> bool {
    is_near(offset, VECTOR)
}

/// What an instruction with the prefix EVEX reads or writes beside a register.
enum Operand {
    Vector(Vector),
    /// In memory, in units of so many bytes; perhaps one float for all lanes.
    Memory {
        place: Place,
        unit: i32,
        broadcast: bool,
    },
}

/// The map of an opcode, and what stands for the prefix 66.
#[derive(Clone, Copy)]
struct Opcode {
    map: u8,
    prefix: u8,
    code: u8,
}

const MOVE_LOAD: Opcode = opcode(1, 0, 0x10);
const MOVE_STORE: Opcode = opcode(1, 0, 0x11);
const STREAM: Opcode = opcode(1, 0, 0x2b);
const ADD: Opcode = opcode(1, 0, 0x58);
const MAXIMUM: Opcode = opcode(1, 0, 0x5f);
const COMPARE: Opcode = opcode(1, 0, 0xc2);
const BROADCAST: Opcode = opcode(2, 1, 0x18);
const EXCLUSIVE_OR: Opcode = opcode(1, 1, 0xef);
const MULTIPLY_ADD_231: Opcode = opcode(2, 1, 0xb8);

const fn opcode(map: u8, prefix: u8, code: u8) -> Opcode {
    Opcode { map, prefix, code }
}

/// Which lanes of a vector are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lanes {
    All,
    /// Those where the last comparison held; the others are zero.
    Compared,
}

/// The mask register that holds the last comparison.
const COMPARED: u8 = 1;

/// Instructions, in bytes.
#[derive(Default)]
pub(super) struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// `target = 0` (VPXORD).
    pub(super) fn clear(&mut self, target: Vector) {
        self.evex(EXCLUSIVE_OR, target, target, Operand::Vector(target));
    }

    /// `target = *place` (VMOVUPS).
    pub(super) fn load(&mut self, target: Vector, place: Place) {
        self.evex(MOVE_LOAD, target, Vector(0), whole(place));
    }

    /// `*place = source` (VMOVUPS).
    pub(super) fn store(&mut self, source: Vector, place: Place) {
        self.evex(MOVE_STORE, source, Vector(0), whole(place));
    }

    /// `*place = source` past the caches (VMOVNTPS), where the place is aligned to a vector.
    pub(super) fn stream(&mut self, source: Vector, place: Place) {
        self.evex(STREAM, source, Vector(0), whole(place));
    }

    /// `target = *place`, the float there in every lane (VBROADCASTSS).
    pub(super) fn load_float(&mut self, target: Vector, place: Place) {
        let float = Operand::Memory {
            place,
            unit: FLOAT,
            broadcast: false,
        };
        self.evex(BROADCAST, target, Vector(0), float);
    }

    /// `sum += *place`, the float there in every lane (VADDPS).
    pub(super) fn add_float(&mut self, sum: Vector, place: Place) {
        self.evex(ADD, sum, sum, one_float(place));
    }

    /// `value = floor` in those of the lanes where it is smaller (VMAXPS).
    pub(super) fn raise(&mut self, value: Vector, floor: Vector, lanes: Lanes) {
        let prefix = self.len();
        self.evex(MAXIMUM, value, floor, Operand::Vector(value));
        if lanes == Lanes::Compared {
            // The last byte of the prefix: zeros elsewhere, by the mask.
            self.bytes[prefix + 3] |= 0x80 | COMPARED;
        }
    }

    /// Compares: in which lanes `vector < *place` (VCMPPS, ordered).
    pub(super) fn compare_less(&mut self, vector: Vector, place: Place) {
        self.evex(COMPARE, Vector(COMPARED), vector, whole(place));
        self.bytes.push(1);
    }

    /// `sum += vector · *place`, the float there in every lane (VFMADD231PS).
    pub(super) fn multiply_add_float(&mut self, sum: Vector, vector: Vector, place: Place) {
        self.evex(MULTIPLY_ADD_231, sum, vector, one_float(place));
    }

    /// `sum += a · b` (VFMADD231PS).
    pub(super) fn multiply_add(&mut self, sum: Vector, a: Vector, b: Vector) {
        self.evex(MULTIPLY_ADD_231, sum, a, Operand::Vector(b));
    }

    /// `target = *place`, eight bytes (MOV).
    pub(super) fn load_register(&mut self, target: Register, place: Place) {
        let (target, base) = (target as u8, place.base as u8);
        self.bytes.push(0x48 | (target >> 3) << 2 | base >> 3);
        self.bytes.push(0x8b);
        self.bytes.push(0x80 | (target & 7) << 3 | base & 7);
        self.bytes.extend(place.offset.to_le_bytes());
    }

    /// Asks for what lies in a place, whose base is one of the first eight registers (PREFETCHT0).
    pub(super) fn prefetch(&mut self, place: Place) {
        debug_assert!((place.base as u8) < 8);
        self.bytes.extend([0x0f, 0x18, 0x88 | place.base as u8]);
        self.bytes.extend(place.offset.to_le_bytes());
    }

    /// `target += amount` (ADD).
    pub(super) fn add(&mut self, target: Register, amount: i32) {
        let target = target as u8;
        let bytes = [0x48 | target >> 3, 0x81, 0xc0 | target & 7];
        self.bytes.extend(bytes);
        self.bytes.extend(amount.to_le_bytes());
    }

    /// `target += amount` (ADD).
    pub(super) fn add_register(&mut self, target: Register, amount: Register) {
        let (target, amount) = (target as u8, amount as u8);
        self.bytes.extend([
            0x48 | amount >> 3 << 2 | target >> 3,
            0x01,
            0xc0 | (amount & 7) << 3 | target & 7,
        ]);
    }

    /// Goes on at the address in a place, whose base is one of the first eight registers (JMP).
    pub(super) fn jump_through(&mut self, place: Place) {
        debug_assert!((place.base as u8) < 8);
        self.bytes.extend([0xff, 0xa0 | place.base as u8]);
        self.bytes.extend(place.offset.to_le_bytes());
    }

    /// Goes on so many bytes behind this instruction (JMP); [`land`](Self::land) says how many.
    pub(super) fn jump(&mut self) -> Jump {
        self.bytes.push(0xe9);
        self.bytes.extend([0; 4]);
        Jump { end: self.len() }
    }

    /// Where a jump leads to: here.
    pub(super) fn land(&mut self, jump: Jump) {
        let distance = (self.len() - jump.end) as u32;
        self.bytes[jump.end - 4..jump.end].copy_from_slice(&distance.to_le_bytes());
    }

    /// Back to the caller, whose instructions of 128 and 256 bits need not preserve what lies above
    /// (VZEROUPPER, RET).
    pub(super) fn ret(&mut self) {
        self.bytes.extend([0xc5, 0xf8, 0x77, 0xc3]);
    }

    /// Fills up to a multiple of so many bytes, with what nobody executes (INT3).
    pub(super) fn align(&mut self, unit: usize) {
        let len = self.len().next_multiple_of(unit);
        self.bytes.resize(len, 0xcc);
    }

    /// An instruction of 512 bits: `register`, one more operand, and a register or memory.
    fn evex(&mut self, opcode: Opcode, register: Vector, second: Vector, operand: Operand) {
        let bit = |number: u8, at: u8| number >> at & 1;
        let (third, fourth, broadcast) = match &operand {
            Operand::Vector(vector) => (bit(vector.0, 3), bit(vector.0, 4), 0),
            Operand::Memory {
                place, broadcast, ..
            } => (bit(place.base as u8, 3), 0, u8::from(*broadcast)),
        };
        // Upper bits of registers stand inverted.
        let upper = bit(register.0, 3) << 7 | fourth << 6 | third << 5 | bit(register.0, 4) << 4;
        self.bytes.push(0x62);
        self.bytes.push(upper ^ 0xf0 | opcode.map);
        self.bytes
            .push((!second.0 & 0xf) << 3 | 0b100 | opcode.prefix);
        let above = bit(second.0, 4) ^ 1;
        self.bytes.push(0b100_0000 | broadcast << 4 | above << 3);
        self.bytes.push(opcode.code);
        let register = (register.0 & 7) << 3;
        match operand {
            Operand::Vector(vector) => self.bytes.push(0xc0 | register | vector.0 & 7),
            Operand::Memory { place, unit, .. } => {
                let base = place.base as u8 & 7;
                match is_near(place.offset, unit) {
                    true => {
                        let count = (place.offset / unit) as u8;
                        self.bytes.extend([0x40 | register | base, count]);
                    }
                    false => {
                        self.bytes.push(0x80 | register | base);
                        self.bytes.extend(place.offset.to_le_bytes());
                    }
                }
            }
        }
    }
}

/// A jump whose end is not known yet.
#[must_use]
pub(super) struct Jump {
    /// The end of its instruction.
    end: usize,
}

/// One float in memory for all lanes.
fn one_float(place: Place) -> Operand {
    Operand::Memory {
        place,
        unit: FLOAT,
        broadcast: true,
    }
}

/// A whole vector in memory.
fn whole(place: Place) -> Operand {
    Operand::Memory {
        place,
        unit: VECTOR,
        broadcast: false,
    }
}

#[cfg(test)]
mod tests;
