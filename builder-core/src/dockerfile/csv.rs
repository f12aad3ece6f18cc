//! One record of comma-separated values, the form of `--mount=` values.

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// `a"b`
    #[error("a quote stands in a field that does not begin with one")]
    BareQuote,
    /// `"a"b` or `"a`
    #[error("a quoted field does not end with its quote")]
    UnclosedQuote,
    /// Nothing at all.
    #[error("there is no field")]
    Empty,
}

/// Splits a record into its fields. A field in double quotes may hold commas, and a quote written twice.
///
/// # Errors
///
/// The record is empty or its quotes do not pair.
pub(crate) fn fields(record: &str) -> Result<Vec<String>, Error> {
    if record.is_empty() {
        return Err(Error::Empty);
    }
    let mut fields = vec![];
    let mut rest = record;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return Err(Error::BareQuote);
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let (field, after) = quoted_field(quoted)?;
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(Error::UnclosedQuote),
        }
    }
}

/// Reads to the closing quote and returns what stands behind it.
fn quoted_field(text: &str) -> Result<(String, &str), Error> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or(Error::UnclosedQuote)?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}
