//! Finding and executing the program, and errors that say why it could not be.

use super::*;

fn execute_error(spec: &Spec) -> (ExecFailure, String) {
    match try_run(spec) {
        Err(error @ Error::Execute { .. }) => {
            let hint = error.hint().unwrap_or_default();
            let Error::Execute { failure, .. } = error else { unreachable!() };
            (failure, hint)
        }
        other => panic!("{other:?}"),
    }
}

fn write_program(image: &Image, path: &str, content: &[u8], mode: u32) {
    std::fs::write(image.lower(path), content).unwrap();
    std::fs::set_permissions(image.lower(path), std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The start of a 64-bit ELF file with one program header, `PT_INTERP`.
fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
    let mut file = vec![0_u8; 120];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16] = 2;
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[20] = 1;
    file[32] = 64;
    file[52] = 64;
    file[54] = 56;
    file[56] = 1;
    file[64] = 3;
    file[72] = 120;
    let size = u8::try_from(interpreter.len() + 1).unwrap();
    (file[96], file[104]) = (size, size);
    file.extend_from_slice(interpreter.as_bytes());
    file.push(0);
    file
}

in_namespaces! {
    fn the_path_of_the_environment_is_searched() {
        let image = Image::new();
        std::fs::create_dir(image.lower("first")).unwrap();
        write_program(&image, "first/tool", b"#!/bin/sh\necho first\n", 0o755);
        write_program(&image, "bin/tool", b"#!/bin/sh\necho second\n", 0o755);
        write_program(&image, "first/sh", b"not executable", 0o644);
        let mut spec = image.spec(&["tool"]);
        spec.env = vec![(b"PATH".to_vec(), b"/absent:/etc/hosts:/first:/bin".to_vec())];
        assert_eq!(stdout_of(&spec), "first\n");
        spec.argv[0] = b"sh".to_vec();
        spec.argv.extend([b"-c".to_vec(), b"echo passed over".to_vec()]);
        assert_eq!(stdout_of(&spec), "passed over\n");
        spec.env.clear();
        assert_eq!(stdout_of(&spec), "passed over\n", "there is a default");
        let relative = Spec { cwd: b"first".to_vec(), ..image.spec(&["./tool"]) };
        assert_eq!(stdout_of(&relative), "first\n");
    }

    fn errors_of_execve_say_what_is_wrong() {
        let image = Image::new();
        write_program(&image, "script", b"#!/usr/bin/perl -w\n", 0o755);
        write_program(&image, "windows", b"#!/bin/sh\r\necho\r\n", 0o755);
        write_program(&image, "text", b"echo without a first line\n", 0o755);
        write_program(&image, "plain", b"#!/bin/sh\n", 0o644);
        write_program(&image, "glibc", &elf(62, "/lib64/ld-linux-x86-64.so.2"), 0o755);
        write_program(&image, "foreign", &elf(22, "/lib/ld64.so.1"), 0o755);
        let interpreter = |name: &str| ExecFailure::MissingInterpreter { interpreter: name.into() };
        let cases = [
            ("/absent", ExecFailure::NotFound { shell: false }, "ENV PATH"),
            ("absent", ExecFailure::NotFound { shell: false }, "ENV PATH"),
            ("/bin/bash", ExecFailure::NotFound { shell: true }, "no shell"),
            ("/script", interpreter("/usr/bin/perl"), "install the interpreter"),
            ("/windows", interpreter("/bin/sh\r"), "Windows"),
            ("/text", ExecFailure::UnknownFormat { text: true }, "#!/bin/sh"),
            ("/plain", ExecFailure::PermissionDenied, "chmod"),
            ("/etc", ExecFailure::PermissionDenied, "chmod"),
            ("/foreign", ExecFailure::WrongArchitecture { machine: "s390x".into() }, "binfmt"),
        ];
        for (program, expected, hint) in cases {
            let (failure, text) = execute_error(&image.spec(&[program]));
            assert_eq!(failure, expected, "{program}");
            assert!(text.contains(hint), "{program}: {text}");
        }
        if cfg!(target_arch = "x86_64") {
            let (failure, text) = execute_error(&image.spec(&["/glibc"]));
            assert_eq!(failure, interpreter("/lib64/ld-linux-x86-64.so.2"));
            assert!(text.contains("Alpine"), "{text}");
        }
        let error = try_run(&image.spec(&["/absent"])).unwrap_err();
        assert_eq!(error.to_string(), "execute \"/absent\": not found in the image");
    }

    fn impossible_commands() {
        let image = Image::new();
        assert!(matches!(try_run(&image.spec(&[])), Err(Error::EmptyCommand)));
        assert!(matches!(try_run(&image.spec(&["", "x"])), Err(Error::EmptyCommand)));
        assert!(matches!(try_run(&image.spec(&["true", "a\0b"])), Err(Error::NulByte { .. })));
        let long = "x".repeat(200_000);
        let (failure, _) = execute_error(&image.spec(&["true", &long]));
        assert_eq!(failure, ExecFailure::TooLong);
    }
}
