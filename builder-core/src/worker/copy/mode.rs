//! `--chmod` as a function of a mode.

use crate::plan::{Chmod, ModeAction, ModeBits, ModeChange};

/// Returns the permission bits after `chmod`, with umask 0. Symbolic links are never passed in.
pub(crate) fn apply(chmod: &Chmod, mode: u32, is_dir: bool) -> u32 {
    match chmod {
        Chmod::Octal(mode) => *mode,
        Chmod::Symbolic(changes) => changes.iter().fold(mode, |mode, change| symbolic(*change, mode, is_dir)),
    }
}

fn symbolic(change: ModeChange, mode: u32, is_dir: bool) -> u32 {
    let who = change.who;
    let spread = |bits: u32| (bits << 6 | bits << 3 | bits) & who;
    let (bits, special) = match change.bits {
        ModeBits::Letters { permissions, execute_if_any, set_id, sticky } => {
            let execute = u32::from(execute_if_any && (is_dir || mode & 0o111 != 0));
            let mut special = 0;
            if set_id {
                special |= if who & 0o700 != 0 { 0o4000 } else { 0 } | if who & 0o070 != 0 { 0o2000 } else { 0 };
            }
            // The sticky bit is nobody's in particular: `+t` sets it, `o+t` does not.
            if sticky && who == 0o777 {
                special |= 0o1000;
            }
            (spread(permissions | execute), special)
        }
        ModeBits::CopyFrom(0o700) => (spread(mode >> 6 & 7), 0),
        ModeBits::CopyFrom(0o070) => (spread(mode >> 3 & 7), 0),
        ModeBits::CopyFrom(_) => (spread(mode & 7), 0),
    };
    match change.action {
        ModeAction::Add => mode | bits | special,
        ModeAction::Remove => mode & !(bits | special),
        ModeAction::Set => {
            let kept_special = match who {
                0o777 => 0,
                who => mode & !(if who & 0o700 != 0 { 0o4000 } else { 0 } | if who & 0o070 != 0 { 0o2000 } else { 0 }),
            };
            (mode & 0o777 & !who) | bits | (kept_special & 0o7000) | special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(who: u32, action: ModeAction, permissions: u32, execute_if_any: bool) -> ModeChange {
        let bits = ModeBits::Letters { permissions, execute_if_any, set_id: false, sticky: false };
        ModeChange { who, action, bits }
    }

    #[test]
    fn symbolic_modes() {
        let cases = [
            (
                vec![letters(0o700, ModeAction::Add, 1, false), letters(0o077, ModeAction::Remove, 4, false)],
                0o644,
                0o700,
            ),
            (vec![letters(0o777, ModeAction::Set, 4, true)], 0o644, 0o444),
            (vec![letters(0o777, ModeAction::Set, 4, true)], 0o755, 0o555),
            (vec![letters(0o777, ModeAction::Add, 1, false)], 0o644, 0o755),
            (vec![ModeChange { who: 0o070, action: ModeAction::Set, bits: ModeBits::CopyFrom(0o700) }], 0o640, 0o660),
        ];
        for (changes, before, after) in cases {
            let text = format!("{changes:?}");
            assert_eq!(apply(&Chmod::Symbolic(changes), before, false), after, "{text}");
        }
        let set_id = ModeBits::Letters { permissions: 0, execute_if_any: false, set_id: true, sticky: false };
        let add = |who, bits| Chmod::Symbolic(vec![ModeChange { who, action: ModeAction::Add, bits }]);
        assert_eq!(apply(&add(0o070, set_id), 0o644, false), 0o2644);
        assert_eq!(apply(&Chmod::Octal(0o4711), 0o644, false), 0o4711);
    }

    #[test]
    fn capital_x_is_for_directories_and_what_is_executable_already() {
        let chmod = Chmod::Symbolic(vec![letters(0o777, ModeAction::Add, 0, true)]);
        assert_eq!(apply(&chmod, 0o600, true), 0o711);
        assert_eq!(apply(&chmod, 0o600, false), 0o600);
        assert_eq!(apply(&chmod, 0o700, false), 0o711);
    }
}
