//! Why `execve(2)` refused a file, from its error and the file's first bytes. `ENOENT` alone may mean three things.

use std::fmt;

use rustix::io::Errno;

/// What is wrong with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecFailure {
    /// No such file, in `PATH` or at the path given.
    NotFound {
        /// Whether it is a shell, without which the shell form of an instruction cannot work.
        shell: bool,
    },
    /// The file is there, its interpreter is not.
    MissingInterpreter {
        /// Of a script's first line or an ELF header.
        interpreter: String,
    },
    /// An ELF file for another processor.
    WrongArchitecture {
        /// As in the ELF header.
        machine: String,
    },
    /// Neither ELF nor a script with `#!`.
    UnknownFormat {
        /// Whether it looks like text.
        text: bool,
    },
    /// Not executable for this user, or a directory.
    PermissionDenied,
    /// Arguments and environment together are too long.
    TooLong,
    /// Anything else; the error number says it.
    Other,
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { .. } => write!(formatter, "not found in the image"),
            Self::MissingInterpreter { interpreter } => {
                write!(formatter, "its interpreter {interpreter:?} is not in the image")
            }
            Self::WrongArchitecture { machine } => write!(formatter, "it is a program for {machine}"),
            Self::UnknownFormat { .. } => write!(formatter, "it is neither a binary nor a script with #!"),
            Self::PermissionDenied => write!(formatter, "not executable for this user"),
            Self::TooLong => write!(formatter, "arguments and environment are too long"),
            Self::Other => write!(formatter, "refused"),
        }
    }
}

impl ExecFailure {
    /// Whether there is no such program, or nothing to run it with.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::MissingInterpreter { .. })
    }

    /// Judges by the error, the name and the file's first bytes (empty when unknown).
    pub(super) fn new(errno: Errno, program: &[u8], head: &[u8]) -> Self {
        match errno {
            Errno::NOENT => match interpreter(head) {
                Some(interpreter) => {
                    Self::MissingInterpreter { interpreter: String::from_utf8_lossy(interpreter).into_owned() }
                }
                None => Self::NotFound { shell: is_shell(program) },
            },
            Errno::NOTDIR => Self::NotFound { shell: is_shell(program) },
            Errno::NOEXEC => match machine(head) {
                Some(machine) => Self::WrongArchitecture { machine: machine_name(machine) },
                None => Self::UnknownFormat { text: !head.is_empty() && !head.contains(&0) },
            },
            Errno::ACCESS | Errno::PERM => Self::PermissionDenied,
            Errno::TOOBIG => Self::TooLong,
            _ => Self::Other,
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { shell: true } => Some(
                "the image has no shell: use the exec form, RUN [\"program\", \"argument\"], or a base image with a shell"
                    .into(),
            ),
            Self::NotFound { shell: false } => {
                Some("is it installed in this stage, and is its directory in PATH (ENV PATH=…)?".into())
            }
            Self::MissingInterpreter { interpreter } if interpreter.ends_with('\r') => {
                Some("the script has Windows line ends: convert it with dos2unix or git's autocrlf=input".into())
            }
            Self::MissingInterpreter { interpreter } if interpreter.contains("ld-linux") => Some(
                "the program was linked with glibc, which this image (such as Alpine) does not have: \
                 link it statically or use a glibc image"
                    .into(),
            ),
            Self::MissingInterpreter { interpreter } if interpreter.contains("ld-musl") => {
                Some("the program was linked with musl, which this image does not have: link it statically".into())
            }
            Self::MissingInterpreter { .. } => Some("install the interpreter in this stage".into()),
            Self::WrongArchitecture { .. } => {
                Some("build for this machine's platform, or register an emulator (qemu-user-static with binfmt_misc)".into())
            }
            Self::UnknownFormat { text: true } => Some("begin the script with #!/bin/sh".into()),
            Self::PermissionDenied => Some("make it executable: COPY --chmod=755, or chmod +x in an earlier RUN".into()),
            Self::TooLong => Some("put long lists into a file, by a heredoc for instance".into()),
            Self::UnknownFormat { text: false } | Self::Other => None,
        }
    }
}

fn is_shell(program: &[u8]) -> bool {
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    [b"sh".as_slice(), b"bash", b"ash", b"dash", b"zsh"].contains(&name)
}

/// The interpreter that a script or a dynamically linked program asks for.
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let name = line.split(|byte| *byte == b' ' || *byte == b'\t').find(|word| !word.is_empty())?;
        return Some(name);
    }
    elf_interpreter(head)
}

const ELF: &[u8] = b"\x7fELF";

/// `PT_INTERP` of a 64-bit little-endian ELF file, if it lies within `head`, as linkers put it.
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let offset = usize::try_from(u64::from_le_bytes(array(head, 32)?)).ok()?;
    let count = usize::from(u16::from_le_bytes(array(head, 56)?));
    for index in 0..count {
        let header = offset.checked_add(index.checked_mul(56)?)?;
        if u32::from_le_bytes(array(head, header)?) == 3 {
            let start = usize::try_from(u64::from_le_bytes(array(head, header.checked_add(8)?)?)).ok()?;
            return head.get(start..)?.split(|byte| *byte == 0).next();
        }
    }
    None
}

/// Whether these are the first bytes of a 64-bit little-endian program that needs no interpreter.
pub(crate) fn is_static_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF\x02\x01") && elf_interpreter(head).is_none()
}

fn machine(head: &[u8]) -> Option<u16> {
    let raw: [u8; 2] = array(head, 18).filter(|_| head.starts_with(ELF))?;
    Some(if head.get(5) == Some(&2) { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "386".into(),
        8 => "mips".into(),
        20 | 21 => "ppc64".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        62 => "amd64".into(),
        183 => "arm64".into(),
        243 => "riscv64".into(),
        258 => "loong64".into(),
        other => format!("ELF machine {other}"),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}
