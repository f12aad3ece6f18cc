//! Emulators of this machine for the commands of one build, without anybody having registered them.
//!
//! Since Linux 6.7 a user namespace may have a `binfmt_misc` of its own. It counts for the processes of the namespace
//! instead of the machine's, which sees nothing of it; it is mounted nowhere and gone with the descriptor. An emulator is
//! opened when it is registered (flag `F`), so it runs inside of any image.
//!
//! Never used outside of a user namespace of the build's own, where it would be the machine's.
//!
//! Rules: the kernel's `binfmt-misc.rst`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::sandbox;
use crate::sys::mount::{Attributes, Configuration};

/// Where distributions and people put QEMU.
const DIRS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// Bytes of an ELF file that say what it is for: up to `e_machine`.
const MAGIC: usize = 20;
/// Bytes of a program in which linkers put what it needs to start.
const HEAD: u64 = 4096;
/// `argv[0]` stays (P), rights are those of the emulated program (C), the emulator is opened now (F).
const FLAGS: &str = "PCF";

/// The `binfmt_misc` of a user namespace. What is registered counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Emulators(OwnedFd);

impl Emulators {
    /// Makes an empty one. From now on what is registered for the machine does not count.
    ///
    /// # Errors
    /// `EPERM` before Linux 6.7, `ENODEV` without `CONFIG_BINFMT_MISC`.
    pub(super) fn open() -> io::Result<Self> {
        let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
        Ok(Self(Configuration::open(c"binfmt_misc")?.mount(attributes)?))
    }

    /// Lets `emulator` run programs that begin as `program` does, an ELF executable.
    pub(super) fn register(&self, architecture: &str, program: &[u8], emulator: &Path) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let register = rustix::fs::openat(&self.0, "register", flags, Mode::empty())?;
        File::from(register).write_all(line(architecture, program, emulator).as_bytes())
    }
}

/// What is written to register an emulator. Executables and shared objects are the same to it, which differ in the lowest
/// bit of `e_type`, and so are all ABIs.
fn line(architecture: &str, program: &[u8], emulator: &Path) -> String {
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "\\x{byte:02x}").expect("a string takes all");
            text
        })
    };
    let magic = &program[..MAGIC.min(program.len())];
    let mut mask = [0xff; MAGIC];
    mask[7] = 0;
    let is_big_endian = program.get(5) == Some(&2);
    mask[if is_big_endian { 17 } else { 16 }] = 0xfe;
    let (magic, mask, emulator) = (escaped(magic), escaped(&mask[..magic.len()]), emulator.display());
    format!(":{architecture}:M::{magic}:{mask}:{emulator}:{FLAGS}")
}

/// The emulator of this machine for programs of `architecture`, if it has one that needs no files of its own.
pub(super) fn find(architecture: &str) -> Option<PathBuf> {
    let name = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "loong64" => "loongarch64",
        same => same,
    };
    let names = [format!("qemu-{name}-static"), format!("qemu-{name}")];
    let paths = DIRS.iter().flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)));
    paths.into_iter().find(|path| is_usable(path).unwrap_or(false))
}

/// Whether `path` is a program that is linked statically: an image has no libraries for it.
fn is_usable(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    Ok(meta.is_file() && meta.permissions().mode() & 0o111 != 0 && sandbox::is_static_elf(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_programs_by_their_first_bytes() {
        let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0more".to_vec();
        let path = Path::new("/usr/bin/qemu-aarch64-static");
        let expected = ":arm64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
                        \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:\
                        /usr/bin/qemu-aarch64-static:PCF";
        assert_eq!(line("arm64", &program, path), expected);
        program[5] = 2;
        assert!(line("s390x", &program, path).contains("\\xff\\xff\\xfe\\xff\\xff:/usr"));
    }

    #[test]
    fn an_emulator_is_a_static_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qemu");
        for (content, mode, usable) in [(&b"#!/bin/sh\n"[..], 0o755, false), (b"", 0o755, false)] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_usable(&path).unwrap(), usable);
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
        assert!(is_usable(busybox.expect("busybox-static is installed")).unwrap());
        std::fs::copy(busybox.unwrap(), &path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!is_usable(&path).unwrap(), "it may not be executed");
        assert!(!is_usable(&std::env::current_exe().unwrap()).unwrap(), "it needs its libraries");
        assert!(find("none").is_none());
    }
}
