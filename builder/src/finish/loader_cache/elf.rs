//! What ldconfig reads of a shared object: its SONAME, type flags and ISA level.
//!
//! Layouts: System V ABI, "Object Files" and "Dynamic Linking"; x86 psABI, "Program Property".
//! Every offset comes from the file and may point anywhere: reads outside it end with `None`, as
//! ldconfig ends with "file is truncated".

use super::{Ldconfig, Machine};

/// Entry types (`FLAG_*` of glibc's `ldconfig.h`); the low byte is the C library.
pub const FLAG_ELF: i32 = 0x0001;
pub const FLAG_LIBC5: i32 = 0x0002;
pub const FLAG_LIBC6: i32 = 0x0003;
const FLAG_X86_64: i32 = 0x0300;
const FLAG_X32: i32 = 0x0800;
const FLAG_ARM_HARD_FLOAT: i32 = 0x0900;
const FLAG_AARCH64: i32 = 0x0a00;
const FLAG_ARM_SOFT_FLOAT: i32 = 0x0b00;

/// The smallest file that ldconfig looks at: a 64-bit ELF header.
const SMALLEST: usize = 64;
const SMALLEST_32: usize = 52;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_PROPERTY: u32 = 0x6474_e553;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const GNU_PROPERTY_X86_ISA_1_NEEDED: u32 = 0xc000_8002;

/// What one library contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// `DT_SONAME`, if there is one.
    pub soname: Option<String>,
    /// The `flags` of its cache entry.
    pub flags: i32,
    /// The highest x86 ISA level that it says it needs.
    pub isa_level: u32,
}

/// Reads a file that may be a shared object; `None` when ldconfig would pass over it.
pub fn inspect(ldconfig: &Ldconfig, content: &[u8]) -> Option<Library> {
    let smallest = match ldconfig.machine {
        Machine::Amd64 | Machine::Arm64 => SMALLEST,
        Machine::Armhf | Machine::I386 => SMALLEST_32,
    };
    const ET_DYN: u16 = 3;
    if content.len() < smallest || !content.starts_with(b"\x7fELF") {
        return None;
    }
    let (class, machine) = (content[4], u16_at(content, 18)?);
    if u16_at(content, 16)? != ET_DYN {
        return None;
    }
    match ldconfig.machine {
        Machine::Amd64 | Machine::I386 => inspect_x86(ldconfig, content, class, machine),
        Machine::Arm64 | Machine::Armhf => inspect_arm(ldconfig, content, class),
    }
}

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;

fn inspect_x86(ldconfig: &Ldconfig, content: &[u8], class: u8, machine: u16) -> Option<Library> {
    const EM_386: u16 = 3;
    const EM_X86_64: u16 = 62;
    let flags = match machine {
        EM_X86_64 if class == CLASS_64 => Some(FLAG_X86_64 | FLAG_LIBC6),
        EM_X86_64 => Some(FLAG_X32 | FLAG_LIBC6),
        EM_386 if class == CLASS_32 => None,
        _ => return None,
    };
    let mut library = inspect_class(ldconfig, content, class)?;
    library.flags = flags.unwrap_or(library.flags);
    Some(library)
}

fn inspect_arm(ldconfig: &Ldconfig, content: &[u8], class: u8) -> Option<Library> {
    const EABI_MASK: u32 = 0xff00_0000;
    const EABI_5: u32 = 0x0500_0000;
    const HARD_FLOAT: u32 = 0x400;
    const SOFT_FLOAT: u32 = 0x200;
    let mut library = inspect_class(ldconfig, content, class)?;
    if class == CLASS_64 {
        library.flags = FLAG_AARCH64 | FLAG_LIBC6;
        return Some(library);
    }
    let elf_flags = u32_at(content, 36)?;
    if elf_flags & EABI_MASK == EABI_5 {
        library.flags = FLAG_LIBC6
            | if elf_flags & HARD_FLOAT != 0 {
                FLAG_ARM_HARD_FLOAT
            } else if elf_flags & SOFT_FLOAT != 0 {
                FLAG_ARM_SOFT_FLOAT
            } else {
                0
            };
    }
    Some(library)
}

fn bytes_at<const N: usize>(content: &[u8], offset: u64) -> Option<[u8; N]> {
    let start = usize::try_from(offset).ok()?;
    content.get(start..start.checked_add(N)?)?.try_into().ok()
}

fn u16_at(content: &[u8], offset: u64) -> Option<u16> {
    bytes_at(content, offset).map(u16::from_le_bytes)
}

fn u32_at(content: &[u8], offset: u64) -> Option<u32> {
    bytes_at(content, offset).map(u32::from_le_bytes)
}

/// One file of one class: 32 or 64 bits.
struct Object<'a> {
    content: &'a [u8],
    wide: bool,
}

/// One program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    alignment: u64,
}

impl Object<'_> {
    fn word(&self, offset: u64) -> Option<u64> {
        if self.wide {
            bytes_at(self.content, offset).map(u64::from_le_bytes)
        } else {
            u32_at(self.content, offset).map(u64::from)
        }
    }

    const fn word_size(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, count, size) = if self.wide {
            (self.word(32)?, u16_at(self.content, 56)?, 56)
        } else {
            (self.word(28)?, u16_at(self.content, 44)?, 32)
        };
        (0..u64::from(count)).map(|index| self.segment(table.checked_add(index * size)?)).collect()
    }

    fn segment(&self, at: u64) -> Option<Segment> {
        let kind = u32_at(self.content, at)?;
        let fields = if self.wide { [8, 16, 32, 48] } else { [4, 8, 16, 28] };
        let [offset, address, file_size, alignment] =
            fields.map(|field| at.checked_add(field).and_then(|at| self.word(at)));
        Some(Segment {
            kind,
            offset: offset?,
            address: address?,
            file_size: file_size?,
            alignment: alignment?,
        })
    }

    /// The entries of the dynamic section up to `DT_NULL`. `None` when it runs out of the file.
    fn dynamic(&self, start: u64) -> Option<Vec<(u64, u64)>> {
        let size = self.word_size();
        let mut entries = Vec::new();
        let mut at = start;
        loop {
            let tag = self.word(at)?;
            if tag == DT_NULL {
                return Some(entries);
            }
            entries.push((tag, self.word(at.checked_add(size)?)?));
            at = at.checked_add(2 * size)?;
        }
    }

    /// The string at an offset, up to its NUL or the end of the file.
    fn string(&self, offset: u64) -> Option<&[u8]> {
        let rest = self.content.get(usize::try_from(offset).ok()?..)?;
        Some(rest.split(|byte| *byte == 0).next().unwrap_or_default())
    }
}

fn inspect_class(ldconfig: &Ldconfig, content: &[u8], class: u8) -> Option<Library> {
    let wide = match class {
        CLASS_32 => false,
        CLASS_64 => true,
        _ => return None,
    };
    let object = Object { content, wide };
    let segments = object.segments()?;
    let mut library = Library {
        soname: None,
        flags: if ldconfig.legacy { FLAG_ELF } else { FLAG_LIBC6 },
        isa_level: 0,
    };
    let mut dynamic = None;
    for segment in &segments {
        match segment.kind {
            // ldconfig keeps this offset in 32 bits.
            PT_DYNAMIC => dynamic = Some((segment.offset & 0xffff_ffff, segment.file_size)),
            PT_INTERP => {
                let interpreter = object.string(segment.offset)?;
                if ldconfig.legacy && is_known_interpreter(ldconfig.machine, interpreter) {
                    library.flags = FLAG_LIBC6;
                }
            }
            PT_GNU_PROPERTY if ldconfig.machine.is_x86() => {
                if let Some(level) = isa_level(&object, segment) {
                    library.isa_level = level;
                }
            }
            _ => {}
        }
    }
    let (start, size) = dynamic?;
    if size == 0 {
        return None;
    }
    let entries = object.dynamic(start)?;
    let (_, table) = *entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?;
    let strings = table.wrapping_sub(load_offset(&segments, table));
    read_names(ldconfig, &object, &entries, strings, &mut library)?;
    Some(library)
}

/// What a program or library needs of others when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// The loader, of a program.
    pub interpreter: Option<String>,
    /// The libraries, by the names that the loader looks for.
    pub libraries: Vec<String>,
    /// Where it looks first, as written: `$ORIGIN` and empty parts included.
    pub run_path: Vec<String>,
}

/// Reads what an ELF file needs; `None` for any other file, and for one that is malformed.
pub fn needs(content: &[u8]) -> Option<Needs> {
    const LITTLE_ENDIAN: u8 = 1;
    if content.len() < SMALLEST_32 || !content.starts_with(b"\x7fELF") {
        return None;
    }
    let wide = match (content[4], content[5]) {
        (CLASS_32, LITTLE_ENDIAN) => false,
        (CLASS_64, LITTLE_ENDIAN) => true,
        _ => return None,
    };
    let object = Object { content, wide };
    let segments = object.segments()?;
    let text = |offset: u64| {
        let bytes = object.string(offset)?;
        (bytes.len() <= 4096).then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    let mut needs = Needs::default();
    let mut dynamic = None;
    for segment in &segments {
        match segment.kind {
            PT_DYNAMIC if segment.file_size > 0 => dynamic = Some(segment.offset),
            PT_INTERP => needs.interpreter = Some(text(segment.offset)?),
            _ => {}
        }
    }
    let Some(dynamic) = dynamic else { return Some(needs) };
    let entries = object.dynamic(dynamic)?;
    let Some((_, table)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
        return Some(needs);
    };
    let strings = table.wrapping_sub(load_offset(&segments, *table));
    let find = |wanted: u64| entries.iter().filter(move |(tag, _)| *tag == wanted);
    for (_, value) in find(DT_NEEDED) {
        needs.libraries.push(text(strings.wrapping_add(*value))?);
    }
    // The older kind counts only where there is none of the newer.
    let path = find(DT_RUNPATH).chain(find(DT_RPATH)).next();
    if let Some((_, value)) = path {
        let path = text(strings.wrapping_add(*value))?;
        needs.run_path = path.split(':').map(str::to_owned).collect();
    }
    Some(needs)
}

/// The difference between addresses and file offsets in the segment that holds `address`.
fn load_offset(segments: &[Segment], address: u64) -> u64 {
    segments
        .iter()
        .find(|segment| {
            segment.kind == PT_LOAD
                && address >= segment.address
                && address - segment.address < segment.file_size
        })
        .map_or(0, |segment| segment.address.wrapping_sub(segment.offset))
}

fn read_names(
    ldconfig: &Ldconfig,
    object: &Object<'_>,
    entries: &[(u64, u64)],
    strings: u64,
    library: &mut Library,
) -> Option<()> {
    for (tag, value) in entries {
        match *tag {
            DT_NEEDED if ldconfig.legacy => {
                let name = object.string(strings.wrapping_add(*value))?;
                if library.flags == FLAG_ELF && matches!(name, b"libc.so.6" | b"libm.so.6") {
                    library.flags = FLAG_LIBC6;
                }
            }
            DT_SONAME => {
                let name = object.string(strings.wrapping_add(*value))?;
                library.soname = Some(String::from_utf8_lossy(name).into_owned());
            }
            _ => continue,
        }
        if library.soname.is_some() && library.flags != FLAG_ELF {
            break;
        }
    }
    Some(())
}

fn is_known_interpreter(machine: Machine, name: &[u8]) -> bool {
    let known: &[&[u8]] = if machine.is_x86() {
        &[
            b"/lib/ld-linux-x86-64.so.2",
            b"/lib/ld-linux.so.2",
            b"/libx32/ld-linux-x32.so.2",
            b"/lib64/ld-linux-x86-64.so.2",
        ]
    } else {
        &[
            b"/lib/ld-linux-aarch64.so.1",
            b"/lib/ld-linux-aarch64_be.so.1",
            b"/lib/ld-linux-aarch64_ilp32.so.1",
            b"/lib/ld-linux-aarch64_be_ilp32.so.1",
            b"/lib/ld-linux.so.3",
            b"/lib/ld-linux-armhf.so.3",
        ]
    };
    known.contains(&name)
}

const fn align_up(value: u64, alignment: u64) -> u64 {
    value.saturating_add(alignment - 1) & !(alignment - 1)
}

/// The ISA level of the first `NT_GNU_PROPERTY_TYPE_0` note, if it states one.
fn isa_level(object: &Object<'_>, segment: &Segment) -> Option<u32> {
    const HEADER: u64 = 12;
    let alignment = object.word_size();
    if segment.alignment != alignment {
        return None;
    }
    let mut at = 0_u64;
    while at.checked_add(HEADER)? < segment.file_size {
        let note = segment.offset.checked_add(at)?;
        let name_size = u64::from(u32_at(object.content, note)?);
        let size = u64::from(u32_at(object.content, note.checked_add(4)?)?);
        let kind = u32_at(object.content, note.checked_add(8)?)?;
        let name = bytes_at::<4>(object.content, note.checked_add(HEADER)?)?;
        if name_size == 4 && kind == NT_GNU_PROPERTY_TYPE_0 && &name == b"GNU\0" {
            if size < 8 || !size.is_multiple_of(alignment) {
                return None;
            }
            return isa_property(object, note.checked_add(HEADER + 4)?, size);
        }
        let name_end = align_up(HEADER + name_size, alignment);
        at = at.checked_add(align_up(name_end + size, alignment))?;
    }
    None
}

/// Searches the properties of one note for the needed ISA level; they must be in ascending order.
fn isa_property(object: &Object<'_>, start: u64, size: u64) -> Option<u32> {
    let end = start.checked_add(size)?;
    let mut at = start;
    let mut last = 0;
    while end.saturating_sub(at) >= 8 {
        let kind = u32_at(object.content, at)?;
        let data_size = u64::from(u32_at(object.content, at.checked_add(4)?)?);
        at = at.checked_add(8)?;
        if kind < last || at.checked_add(data_size)? > end || kind > GNU_PROPERTY_X86_ISA_1_NEEDED {
            return None;
        }
        last = kind;
        if kind == GNU_PROPERTY_X86_ISA_1_NEEDED {
            let needed = if data_size == 4 { u32_at(object.content, at)? } else { 0 };
            return needed.checked_ilog2();
        }
        at = at.checked_add(align_up(data_size, object.word_size()))?;
    }
    None
}
