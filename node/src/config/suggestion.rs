//! Turns parser errors about keys into sentences that help: what is wrong, what was probably meant.

/// Words at the end of keys that are easily left out.
const UNITS: [&str; 4] = ["_seconds", "_hours", "_bytes_per_second", "_max"];

/// The sentence for an unknown key among the `expected` ones of its section; `elsewhere` are the keys of other
/// sections, with their paths.
pub(super) fn unknown_key(field: &str, expected: &[&str], elsewhere: &[String]) -> String {
    let here = expected.iter().map(|known| (*known, *known));
    let there = elsewhere
        .iter()
        .map(|path| (path.rsplit('.').next().unwrap_or_default(), path.as_str()));
    match nearest(field, here).or_else(|| nearest(field, there)) {
        Some(known) => format!("unknown key {field:?}; did you mean {known:?}?"),
        None => format!("unknown key {field:?}; known here: {}", expected.join(", ")),
    }
}

/// The name of the (key, name) whose key is so near to the field that it was probably meant.
pub(super) fn nearest<'a>(
    field: &str,
    known: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<&'a str> {
    // The distance to a text that the field can still mean.
    let near = |text: &str| {
        let distance = edit_distance(field, text);
        (distance <= 1 + text.len() / 4).then_some(distance)
    };
    let distance = |key: &str| {
        let unit = UNITS.iter().find_map(|unit| key.strip_suffix(unit));
        near(key).or_else(|| Some(1 + near(unit?)?))
    };
    known
        .filter_map(|(key, name)| Some((distance(key)?, key, name)))
        .min()
        .map(|(_, _, name)| name)
}

/// A parser's error in words for people, without its own position, which the caller prints.
pub(super) fn in_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} is there twice")
        }
        Error::InvalidScalar { ty: "u16", .. } => {
            format!("expected a whole number from 0 to {}", u16::MAX)
        }
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => {
            "expected a whole number of 0 or more".to_owned()
        }
        Error::Unexpected { expected, .. } if expected.starts_with("mapping") => {
            "expected a section of keys".to_owned()
        }
        Error::Unexpected { expected, .. } if expected.starts_with("sequence") => {
            "expected a list, like [a, b]".to_owned()
        }
        Error::MultipleDocuments { .. } => {
            "one document is expected: remove \"---\" and what follows it".to_owned()
        }
        other => without_position(&other.to_string()),
    }
}

fn without_position(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.rsplit_once(" at line ").map_or(line, |(text, _)| text);
    match line.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest.to_owned(),
        // The standard library's words for what cannot be read as an address.
        _ if line == "invalid socket address syntax" => {
            "expected an IP address and a port, like 0.0.0.0:9190".to_owned()
        }
        _ => line.to_owned(),
    }
}

/// How many characters must be inserted, removed or replaced to turn one key into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
