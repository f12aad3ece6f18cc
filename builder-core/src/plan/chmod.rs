//! `--chmod`: an octal mode or symbolic changes, as `chmod(1)` reads them with umask 0.

use super::graph::{Chmod, ModeAction, ModeBits, ModeChange};

const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

/// Parses `text`; `None` if it is neither an octal number up to 7777 nor symbolic.
pub(super) fn parse(text: &str) -> Option<Chmod> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok()?;
        return (mode <= 0o7777).then_some(Chmod::Octal(mode));
    }
    let mut changes = vec![];
    for clause in text.split(',') {
        parse_clause(clause, &mut changes)?;
    }
    Some(Chmod::Symbolic(changes))
}

/// `[ugoa]*([+-=][rwxXstugo]*)+`
fn parse_clause(clause: &str, changes: &mut Vec<ModeChange>) -> Option<()> {
    let actions = clause.find(['+', '-', '='])?;
    let (who_letters, mut rest) = clause.split_at(actions);
    let mut who = 0;
    for letter in who_letters.chars() {
        who |= match letter {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHERS,
            'a' => USER | GROUP | OTHERS,
            _ => return None,
        };
    }
    if who == 0 {
        who = USER | GROUP | OTHERS;
    }
    while let Some(sign) = rest.chars().next() {
        let action = match sign {
            '+' => ModeAction::Add,
            '-' => ModeAction::Remove,
            '=' => ModeAction::Set,
            _ => return None,
        };
        let bits = &rest[1..];
        let end = bits.find(['+', '-', '=']).unwrap_or(bits.len());
        parse_bits(who, action, &bits[..end], changes)?;
        rest = &bits[end..];
    }
    Some(())
}

fn parse_bits(who: u32, action: ModeAction, letters: &str, changes: &mut Vec<ModeChange>) -> Option<()> {
    let (mut permissions, mut execute_if_any, mut set_id, mut sticky) = (0, false, false, false);
    let mut copies = vec![];
    for letter in letters.chars() {
        match letter {
            'r' => permissions |= 4,
            'w' => permissions |= 2,
            'x' => permissions |= 1,
            'X' => execute_if_any = true,
            's' => set_id = true,
            't' => sticky = true,
            'u' => copies.push(USER),
            'g' => copies.push(GROUP),
            'o' => copies.push(OTHERS),
            _ => return None,
        }
    }
    let only_copies = permissions == 0 && !execute_if_any && !set_id && !sticky && !copies.is_empty();
    if !only_copies {
        let bits = ModeBits::Letters { permissions, execute_if_any, set_id, sticky };
        changes.push(ModeChange { who, action, bits });
    }
    for (index, source) in copies.into_iter().enumerate() {
        // `g=ur` sets once and then adds, or the second part would undo the first.
        let later = !only_copies || index > 0;
        let action = if action == ModeAction::Set && later { ModeAction::Add } else { action };
        changes.push(ModeChange { who, action, bits: ModeBits::CopyFrom(source) });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(chmod: Option<Chmod>) -> String {
        let changes = match chmod {
            None => return "invalid".to_owned(),
            Some(Chmod::Octal(mode)) => return format!("{mode:04o}"),
            Some(Chmod::Symbolic(changes)) => changes,
        };
        let one = |change: &ModeChange| {
            let action = match change.action {
                ModeAction::Add => '+',
                ModeAction::Remove => '-',
                ModeAction::Set => '=',
            };
            let bits = match change.bits {
                ModeBits::CopyFrom(mask) => format!("copy {mask:03o}"),
                ModeBits::Letters { permissions, execute_if_any, set_id, sticky } => {
                    let flag = |set: bool, letter: &str| if set { letter.to_owned() } else { String::new() };
                    format!("{permissions}{}{}{}", flag(execute_if_any, "X"), flag(set_id, "s"), flag(sticky, "t"))
                }
            };
            format!("{:03o}{action}{bits}", change.who)
        };
        changes.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn modes() {
        for (text, want) in [
            ("755", "0755"),
            ("07777", "7777"),
            ("10000", "invalid"),
            ("64a", "invalid"),
            ("8", "invalid"),
            ("+x", "777+1"),
            ("u=rwX,go=rX", "700=6X, 077=4X"),
            ("g=u", "070=copy 700"),
            ("g=ur", "070=4, 070+copy 700"),
            ("u+r-w", "700+4, 700-2"),
            ("a-s,+t", "777-0s, 777+0t"),
            ("o=", "007=0"),
            ("u", "invalid"),
            ("z+x", "invalid"),
            ("u+q", "invalid"),
            ("u+x,", "invalid"),
        ] {
            assert_eq!(show(parse(text)), want, "{text}");
        }
    }
}
