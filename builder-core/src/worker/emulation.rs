//! Commands of other processors: whether this machine runs them, found out before anything else is done.
//!
//! Asked is the kernel, with the smallest program there is for the processor: whatever binfmt_misc, the processor itself
//! or a compatibility mode make of it counts, also where binfmt_misc cannot be looked into, as in a container. Where it
//! can, an emulator is refused that would not be found inside an image. What nothing is registered for gets an emulator
//! of this machine, for this build alone ([`super::emulators`]).
//!
//! Rules: `elf(5)`; the kernel's `binfmt-misc.rst`.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Refusal;
use super::emulators::{self, Emulators};
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::image::Platform;
use crate::plan::{BuildGraph, Op};
use crate::store::Store;

/// Where the kernel lists what it runs by means of another program.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// A program that ends at once with status 0.
#[derive(Debug, Clone, Copy)]
struct Smallest {
    bits: Bits,
    order: Order,
    /// `e_machine`
    machine: u16,
    /// `e_flags`
    flags: u32,
    /// `exit(0)`
    code: &'static [u32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    B32,
    B64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// Instructions as words of the program's byte order.
fn smallest(architecture: &str) -> Option<Smallest> {
    use {Bits::B32, Bits::B64, Order::Big, Order::Little};
    let program = |bits, order, machine, flags, code| Some(Smallest { bits, order, machine, flags, code });
    match architecture {
        // mov eax, 60; xor edi, edi; syscall
        "amd64" => program(B64, Little, 62, 0, &[0x0000_3cb8, 0x0fff_3100, 0x9090_9005]),
        // mov eax, 1; xor ebx, ebx; int 0x80
        "386" => program(B32, Little, 3, 0, &[0x0000_01b8, 0xcddb_3100, 0x9090_9080]),
        // mov x0, 0; mov x8, 93; svc 0
        "arm64" => program(B64, Little, 183, 0, &[0xd280_0000, 0xd280_0ba8, 0xd400_0001]),
        // mov r0, 0; mov r7, 1; svc 0
        "arm" => program(B32, Little, 40, 0x0500_0000, &[0xe3a0_0000, 0xe3a0_7001, 0xef00_0000]),
        // li a0, 0; li a7, 93; ecall
        "riscv64" => program(B64, Little, 243, 0, &[0x0000_0513, 0x05d0_0893, 0x0000_0073]),
        // li r0, 1; li r3, 0; sc
        "ppc64le" => program(B64, Little, 21, 2, &[0x3800_0001, 0x3860_0000, 0x4400_0002]),
        // lghi r2, 0; svc 1
        "s390x" => program(B64, Big, 22, 0, &[0xa729_0000, 0x0a01_0707]),
        // addi.w a0, zero, 0; addi.w a7, zero, 93; syscall 0
        "loong64" => program(B64, Little, 258, 3, &[0x0280_0004, 0x0281_740b, 0x002b_0000]),
        _ => None,
    }
}

impl Smallest {
    /// The file: ELF header, one program header, code.
    fn elf(&self) -> Vec<u8> {
        const BASE: u64 = 0x1_0000;
        let (wide, header, program) = match self.bits {
            Bits::B32 => (false, 52_u16, 32_u16),
            Bits::B64 => (true, 64, 56),
        };
        let start = u64::from(header + program);
        let end = start + 4 * self.code.len() as u64;
        let mut file = Bytes { bytes: Vec::new(), order: self.order, wide };
        let class = if wide { 2 } else { 1 };
        let data = if self.order == Order::Little { 1 } else { 2 };
        file.bytes.extend([0x7f, b'E', b'L', b'F', class, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // An executable for this machine, version 1, its entry, program headers, no section headers.
        file.half(2).half(self.machine).word(1).address(BASE + start).address(u64::from(header)).address(0);
        file.word(self.flags).half(header).half(program).half(1).half(0).half(0).half(0);
        // One segment to be loaded, readable and executable; where the flags stand depends on the class.
        file.word(1);
        if wide {
            file.word(5);
        }
        file.address(0).address(BASE).address(BASE).address(end).address(end);
        if !wide {
            file.word(5);
        }
        file.address(0x1_0000);
        self.code.iter().for_each(|word| {
            file.word(*word);
        });
        file.bytes
    }
}

/// Bytes in the order and width of a machine.
struct Bytes {
    bytes: Vec<u8>,
    order: Order,
    wide: bool,
}

impl Bytes {
    fn half(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(if self.order == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() });
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(if self.order == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() });
        self
    }

    fn address(&mut self, value: u64) -> &mut Self {
        let (big, little) = (value.to_be_bytes(), value.to_le_bytes());
        match (self.order, self.wide) {
            (Order::Little, true) => self.bytes.extend(little),
            (Order::Little, false) => self.bytes.extend(&little[..4]),
            (Order::Big, true) => self.bytes.extend(big),
            (Order::Big, false) => self.bytes.extend(&big[4..]),
        }
        self
    }
}

/// What this machine does with programs of a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Runs them, or nobody can tell.
    Runs,
    /// Has nothing for them.
    Nothing,
    /// Has an emulator that is looked for inside the image.
    NotFixed,
    /// Has this emulator, which the kernel was not told of and does not take from a build, for that reason.
    NotTold(PathBuf, String),
}

/// The first command for a processor that is not this machine's.
struct Foreign<'g> {
    step: StepId,
    platform: &'g Platform,
    verdict: Verdict,
    /// What would run such programs, and the smallest of them.
    emulator: Option<(Smallest, PathBuf)>,
}

impl Foreign<'_> {
    fn architecture(&self) -> &str {
        &self.platform.architecture
    }
}

/// What of the graph cannot run here because it is for another processor: the first command of each platform. The second
/// is what lets others run, as long as it is kept. `no_exec` says why no command can run at all; then nothing is
/// arranged for them.
///
/// # Errors
/// When the store cannot hold a file.
pub(crate) fn foreign(
    graph: &BuildGraph,
    store: &Store,
    no_exec: Option<&Error>,
) -> Result<(Vec<Refusal>, Option<Emulators>), Error> {
    let host = Platform::host();
    let mut found: Vec<Foreign<'_>> = Vec::new();
    for step in &graph.steps {
        let Op::Run(op) = &step.op else { continue };
        let platform = &op.platform;
        let architecture = platform.architecture.as_str();
        if architecture != host.architecture && found.iter().all(|other| other.architecture() != architecture) {
            let verdict = judge(architecture, store)?;
            found.push(Foreign { step: step.id(), platform, verdict, emulator: None });
        }
    }
    let emulators = match no_exec {
        None => emulate(&mut found, store)?,
        Some(_) => None,
    };
    let refuse = |foreign: Foreign<'_>| {
        let (what, hint) = refusal(&foreign.verdict, foreign.platform)?;
        Some(Refusal { step: foreign.step, what, hint })
    };
    Ok((found.into_iter().filter_map(refuse).collect(), emulators))
}

/// Registers emulators of this machine, if there is something that it does not run and one for it.
///
/// What is registered for the machine no longer counts then, so there must be one for what runs by that, too.
fn emulate(found: &mut [Foreign<'_>], store: &Store) -> Result<Option<Emulators>, Error> {
    found.iter_mut().filter(|foreign| !is_native(foreign.architecture())).for_each(|foreign| {
        foreign.emulator = smallest(foreign.architecture()).zip(emulators::find(foreign.architecture()));
    });
    let would_help = |foreign: &Foreign<'_>| foreign.verdict != Verdict::Runs && foreign.emulator.is_some();
    let would_be_lost = |foreign: &Foreign<'_>| {
        foreign.verdict == Verdict::Runs && foreign.emulator.is_none() && !is_native(foreign.architecture())
    };
    if !found.iter().any(would_help) || found.iter().any(would_be_lost) {
        return Ok(None);
    }
    let emulators = match Emulators::open() {
        Ok(emulators) => emulators,
        Err(error) => {
            for foreign in found.iter_mut().filter(|foreign| would_help(foreign)) {
                let told = |(_, path)| Verdict::NotTold(path, error.to_string());
                foreign.verdict = foreign.emulator.take().map_or(Verdict::Nothing, told);
            }
            return Ok(None);
        }
    };
    for foreign in found {
        let Some((program, path)) = foreign.emulator.take() else { continue };
        foreign.verdict = match emulators.register(foreign.architecture(), &program.elf(), &path) {
            Err(error) => Verdict::NotTold(path, error.to_string()),
            Ok(()) if tries(&program, store)? => Verdict::Runs,
            Ok(()) => Verdict::Nothing,
        };
    }
    Ok(Some(emulators))
}

/// Whether the processor of this machine runs programs of `architecture` itself.
fn is_native(architecture: &str) -> bool {
    matches!((Platform::host().architecture.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"))
}

fn refusal(verdict: &Verdict, platform: &Platform) -> Option<(String, Option<Cow<'static, str>>)> {
    let host = Platform::host();
    let (what, hint) = match verdict {
        Verdict::Runs => return None,
        Verdict::Nothing => (
            format!("this {host} machine has no emulator for {platform}, which this command is for"),
            "install one (Debian and Ubuntu: apt-get install qemu-user-static; Fedora: dnf install \
             qemu-user-static), or work in a stage FROM --platform=$BUILDPLATFORM and copy its result",
        ),
        Verdict::NotFixed => (
            format!("the emulator of this machine for {platform} is not found inside of images"),
            "register it with the flag F (fix binary), as qemu-user-static does",
        ),
        Verdict::NotTold(path, reason) => (
            format!(
                "the kernel does not know {} as the emulator for {platform}, and takes none from a build: {reason}",
                path.display()
            ),
            "have it registered for the machine (systemctl restart systemd-binfmt, or apt-get install binfmt-support), \
             or use Linux 6.7 or later, where a build does that for itself",
        ),
    };
    Some((what, Some(hint.into())))
}

fn judge(architecture: &str, store: &Store) -> Result<Verdict, Error> {
    let Some(program) = smallest(architecture) else { return Ok(Verdict::Runs) };
    Ok(match tries(&program, store)? {
        false => Verdict::Nothing,
        true if handler(Path::new(BINFMT), &program.elf()).is_some_and(|handler| !handler.fixed) => Verdict::NotFixed,
        true => Verdict::Runs,
    })
}

fn tries(program: &Smallest, store: &Store) -> Result<bool, Error> {
    let dir = store.work_dir().map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let runs = runs(&dir.path().join("probe"), &program.elf());
    runs.map_err(|error| Error::from_source(ErrorKind::Store, &error).context("try a foreign program"))
}

/// Whether the kernel runs the program. What keeps it from being tried says nothing against it.
fn runs(path: &Path, program: &[u8]) -> io::Result<bool> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(program)?;
    drop(file);
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Another thread may have started a program, which has the file open for writing until it is executed.
    for _ in 0..1000 {
        match command.status() {
            Ok(status) => return Ok(status.success()),
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            Err(error) => return Ok(error.raw_os_error() != Some(rustix::io::Errno::NOEXEC.raw_os_error())),
        }
    }
    Ok(true)
}

/// An entry of binfmt_misc.
#[derive(Debug, PartialEq, Eq)]
struct Handler {
    /// The emulator was opened when it was registered, and need not be in the image.
    fixed: bool,
}

/// The entry that is in charge of a program, where it can be found out.
fn handler(dir: &Path, program: &[u8]) -> Option<Handler> {
    let entries = std::fs::read_dir(dir).ok()?;
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    texts.into_iter().find_map(|text| fitting(&text, program))
}

/// Reads an entry; `None` when it is off or for something else.
fn fitting(text: &str, program: &[u8]) -> Option<Handler> {
    let mut lines = text.lines();
    if lines.next() != Some("enabled") {
        return None;
    }
    let (mut magic, mut mask, mut offset, mut fixed) = (None, None, 0, false);
    for line in lines {
        match line.split_once(' ') {
            Some(("flags:", flags)) => fixed = flags.contains('F'),
            Some(("offset", number)) => offset = number.parse().ok()?,
            Some(("magic", hex)) => magic = bytes(hex),
            Some(("mask", hex)) => mask = bytes(hex),
            _ => {}
        }
    }
    let magic = magic?;
    let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
    let found = program.get(offset..)?.get(..magic.len())?;
    let fits = found.iter().zip(&mask).zip(&magic).all(|((byte, mask), magic)| (byte ^ magic) & mask == 0);
    fits.then_some(Handler { fixed })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    hex.trim().as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_program_of_this_machine_runs() {
        let dir = tempfile::tempdir().unwrap();
        let own = smallest(&Platform::host().architecture).expect("a machine that this is developed on");
        assert!(runs(&dir.path().join("own"), &own.elf()).unwrap());
        let none = Smallest { machine: 0xfff0, ..own };
        assert!(!runs(&dir.path().join("none"), &none.elf()).unwrap(), "there is no such machine");
    }

    #[test]
    fn programs_of_all_machines_are_what_emulators_are_registered_for() {
        // Magic and mask of Debian's qemu-user-static, the flags of what it registers.
        let table = [
            ("arm64", "7f454c460201010000000000000000000200b700", "ffffffffffffff00fffffffffffffffffeffffff"),
            ("arm", "7f454c4601010100000000000000000002002800", "ffffffffffffff00fffffffffffffffffeffffff"),
            ("riscv64", "7f454c460201010000000000000000000200f300", "ffffffffffffff00fffffffffffffffffeffffff"),
            ("ppc64le", "7f454c4602010100000000000000000002001500", "ffffffffffffff00fffffffffffffffffeffff00"),
            ("s390x", "7f454c4602020100000000000000000000020016", "ffffffffffffff00fffffffffffffffffffeffff"),
            ("loong64", "7f454c4602010100000000000000000002000201", "fffffffffffffffc00fffffffffffffffeffffff"),
        ];
        for (architecture, magic, mask) in table {
            let entry = |flags: &str| {
                format!("enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n")
            };
            let elf = smallest(architecture).unwrap().elf();
            assert_eq!(fitting(&entry("OCF"), &elf), Some(Handler { fixed: true }), "{architecture}");
            assert_eq!(fitting(&entry("OC"), &elf), Some(Handler { fixed: false }), "{architecture}");
            assert_eq!(fitting(&entry("F").replace("enabled", "disabled"), &elf), None);
            let others = table.iter().filter(|(other, ..)| *other != architecture);
            for (other, ..) in others {
                assert_eq!(
                    fitting(&entry("F"), &smallest(other).unwrap().elf()),
                    None,
                    "{other} is not {architecture}"
                );
            }
        }
        assert_eq!(fitting("enabled\ninterpreter /usr/bin/jar\nflags: \nextension .jar\n", b"\x7fELF"), None);
    }

    #[test]
    fn a_refusal_says_what_to_install() {
        let arm: Platform = "linux/arm64".parse().unwrap();
        let (what, hint) = refusal(&Verdict::Nothing, &arm).unwrap();
        assert!(what.contains("linux/arm64") && hint.unwrap().contains("qemu-user-static"), "{what}");
        assert!(refusal(&Verdict::NotFixed, &arm).unwrap().1.unwrap().contains("flag F"));
        let (what, hint) = refusal(&Verdict::NotTold("/usr/bin/qemu".into(), "EPERM".into()), &arm).unwrap();
        assert!(what.contains("/usr/bin/qemu") && what.contains("EPERM") && hint.unwrap().contains("6.7"), "{what}");
        assert_eq!(refusal(&Verdict::Runs, &arm), None);
    }
}
