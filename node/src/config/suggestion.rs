//! Turns parser errors about keys into sentences that help: what is wrong, what was probably meant.

/// The sentence for an unknown key among the `expected` ones of its section.
pub(super) fn unknown_key(field: &str, expected: &[&str]) -> String {
    let near = expected
        .iter()
        .map(|known| (edit_distance(field, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match near {
        Some((_, known)) => format!("unknown key {field:?}; did you mean {known:?}?"),
        None => format!("unknown key {field:?}; known here: {}", expected.join(", ")),
    }
}

/// The first line of a parser's message, without its own position, which the caller prints.
pub(super) fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest.to_owned(),
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
