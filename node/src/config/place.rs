//! Where a key stands in the text of a configuration file. The parser keeps no places of values that it could read, so this is
//! found by the text alone; a file that is written in an unusual way may have a key that is not found, and then there is none.

/// Line and column, both from 1, at which the key with a path such as `limits.query_samples` stands.
pub(super) fn of_key(text: &str, path: &str) -> Option<(u64, u64)> {
    let (section, key) = match path.split_once('.') {
        None => (text, path),
        Some((name, key)) => {
            let section = &text[top_level(text, name)? + name.len()..];
            (until_next_section(section), key)
        }
    };
    let offset = section.as_ptr() as usize - text.as_ptr() as usize;
    let at = match path == key {
        true => top_level(text, key)?,
        false => offset + positions(section, key).next()?,
    };
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() as u64 + 1;
    Some((line, before[line_start..].chars().count() as u64 + 1))
}

/// Where a key of the file itself stands: at the beginning of a line.
fn top_level(text: &str, key: &str) -> Option<usize> {
    let mut found = positions(text, key);
    found.find(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n')
}

/// The text up to the next line that begins with a key.
fn until_next_section(text: &str) -> &str {
    let begins = |at: &usize| {
        let rest = &text[at + 1..];
        rest.starts_with(|c: char| !c.is_whitespace() && c != '#')
    };
    let mut ends = text.match_indices('\n').map(|(at, _)| at);
    &text[..ends.find(begins).unwrap_or(text.len())]
}

/// Where a text has the key with a colon behind it, outside of comments.
fn positions<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = usize> + 't {
    let found = text.match_indices(key).map(|(at, _)| at);
    found.filter(move |at| {
        let line = text[..*at].rsplit('\n').next().unwrap_or_default();
        let begins = line.is_empty() || line.ends_with([' ', '\t', '{', ',']);
        let is_comment = line.starts_with('#') || line.contains(" #");
        begins
            && !is_comment
            && text[at + key.len()..]
                .trim_start_matches(' ')
                .starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::of_key;

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "# limits: {seeds: 1}\nzone: \"é\" # seeds: x\nlog: {format: text, level: a}\nlimits:\n  # query_samples: 1\n  \
                    query_samples: 2\nstorage:\n  level: 3\nseeds: []\n";
        for (path, expected) in [
            ("zone", Some((2, 1))),
            ("seeds", Some((9, 1))),
            ("log.level", Some((3, 21))),
            ("limits.query_samples", Some((6, 3))),
            ("limits.level", None),
            ("level", None),
            ("", None),
        ] {
            assert_eq!(of_key(text, path), expected, "{path}");
        }
    }
}
