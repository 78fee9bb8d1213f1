//! Writes objects as YAML for people: block style, `name` first in lists of named things, quotes only where a
//! reader of YAML could take a text for something else.

use serde_json::{Map, Value};
use std::fmt::Write;

/// All objects, each a document of its own.
pub(super) fn documents(objects: &[Value]) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        block(&mut text, object, 0);
    }
    text
}

/// A map or list that is not empty, at this depth.
fn block(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) => {
            for (name, value) in in_order(fields) {
                indent(text, depth);
                text.push_str(&scalar(name));
                text.push(':');
                after_key(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                indent(text, depth);
                text.push('-');
                item_of(text, item, depth);
            }
        }
        _ => inline(text, value, depth),
    }
}

fn after_key(text: &mut String, value: &Value, depth: usize) {
    match is_nested(value) {
        true => {
            text.push('\n');
            // Lists stand below their key's first letter, as kubectl prints them.
            let deeper = depth + usize::from(value.is_object());
            block(text, value, deeper);
        }
        false => inline(text, value, depth),
    }
}

/// What stands behind the dash of a list: the first line of a block on the same line.
fn item_of(text: &mut String, item: &Value, depth: usize) {
    match is_nested(item) {
        true => {
            let mut nested = String::new();
            block(&mut nested, item, depth + 1);
            text.push(' ');
            text.push_str(nested.trim_start());
        }
        false => inline(text, item, depth),
    }
}

fn inline(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(lines) if is_literal(lines) => {
            text.push_str(" |\n");
            for line in lines.lines() {
                if !line.is_empty() {
                    indent(text, depth + 1);
                }
                text.push_str(line);
                text.push('\n');
            }
        }
        Value::String(word) => {
            let _infallible = writeln!(text, " {}", scalar(word));
        }
        other => {
            let _infallible = writeln!(text, " {other}");
        }
    }
}

/// `name` before the rest, `spec` and `data` last; else alphabetical, as the map has them.
fn in_order(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| match name.as_str() {
        "apiVersion" | "name" => 0,
        "kind" => 1,
        "metadata" => 2,
        "data" | "spec" => 4,
        _ => 3,
    });
    fields.into_iter()
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Whether a text can be a literal block: whole lines, the first one not indented, nothing that must be escaped.
fn is_literal(text: &str) -> bool {
    let plain = |c: char| c == '\n' || (!c.is_control() && c != '\u{feff}');
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n'])
        && text.chars().all(plain)
}

/// A text in one line, quoted where it could be read as something else.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let inside = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let begins = |c: char| c.is_ascii_alphabetic() || c == '/';
    let plain = text.starts_with(begins)
        && text.chars().all(inside)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.to_owned(),
        // JSON's strings are YAML's.
        false => Value::from(text).to_string(),
    }
}

fn indent(text: &mut String, depth: usize) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "spec": {"list": [{"name": "x", "a": [1, 2], "b": {"c": []}}, [true, null], "no", "-"]},
            "kind": "K", "empty": {}, "text": "a: b\n\n  c\n", "odd": " x\ny", "number": "12", "minus": -1.5,
            "1": "0x1", "quote": "it's \"so\"", "path": "/a/b", "colon": "a:9", "null": "~", "blank": "",
        });
        let text = documents(&[value.clone(), json!({"kind": "L"})]);
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, [value, json!({"kind": "L"})], "{text}");
    }

    #[test]
    fn it_looks_as_people_write_it() {
        let value =
            json!({"kind": "Pod", "spec": {"ports": [{"port": 1, "name": "http"}], "node": "1"}});
        let expected =
            "---\nkind: Pod\nspec:\n  node: \"1\"\n  ports:\n  - name: http\n    port: 1\n";
        assert_eq!(documents(&[value]), expected);
    }
}
