//! One record of comma-separated values, RFC 4180: the form of `--mount` and `--device`.

/// Splits `record` at commas; a field in double quotes may hold commas, and `""` for a quote.
///
/// # Errors
/// One phrase that says which quote is wrong.
pub(super) fn fields(record: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![];
    let mut rest = record;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(format!("a quote inside the unquoted field {:?}", &rest[..end]));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        field.push_str(before);
        if let Some(doubled) = after.strip_prefix('"') {
            field.push('"');
            rest = doubled;
        } else if after.is_empty() || after.starts_with(',') {
            return Ok((field, after));
        } else {
            return Err(format!("text behind the quoted field {field:?}"));
        }
    }
    Err("a quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let ok: [(&str, &[&str]); 6] = [
            ("a=1,b=2", &["a=1", "b=2"]),
            ("", &[""]),
            ("a,", &["a", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a \"\"b\"\"\"", &["a \"b\""]),
            ("\"\",x", &["", "x"]),
        ];
        for (record, want) in ok {
            assert_eq!(fields(record).as_deref(), Ok(&want.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()[..]));
        }
        for (record, want) in [
            ("a\"b", "a quote inside the unquoted field \"a\\\"b\""),
            ("\"a\"b", "text behind the quoted field \"a\""),
            ("\"a", "a quote is not closed"),
        ] {
            assert_eq!(fields(record), Err(want.to_owned()));
        }
    }
}
