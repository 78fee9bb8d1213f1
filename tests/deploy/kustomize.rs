//! As much of kustomize as the overlays use, so that they are checked where there is no `kubectl` of today: resources,
//! strategic merge patches, JSON patches by kind. Whatever else an overlay says is an error here, not ignored.

use crate::read;
use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Deepest nesting of folders that name each other.
const DEPTH_MAX: usize = 8;
/// Lists whose elements are merged by a key, as the API of Kubernetes declares for them; others are replaced.
const MERGE_KEYS: [(&str, &str); 4] = [
    ("containers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
];
/// What removes an element from such a list.
const DIRECTIVE: &str = "$patch";

/// What `kubectl kustomize` makes of a folder of the project, in no particular order.
pub(crate) fn build(folder: &str) -> anyhow::Result<Vec<Value>> {
    build_within(folder, DEPTH_MAX)
}

fn build_within(folder: &str, depth: usize) -> anyhow::Result<Vec<Value>> {
    ensure!(depth > 0, "{folder}: folders name each other");
    let text = read(&format!("{folder}/kustomization.yaml"))?;
    let said: Value = serde_saphyr::from_str(&text)?;
    let fields = said.as_object().context("a kustomization")?;
    let mut objects = Vec::new();
    for (key, value) in fields {
        match key.as_str() {
            "apiVersion" | "kind" | "patches" => {}
            "resources" => {
                for resource in value.as_array().context("resources")? {
                    let path = inside(folder, resource.as_str().context("a resource")?);
                    objects.extend(resource_of(&path, depth)?);
                }
            }
            other => bail!("{folder}: {other} is not understood here"),
        }
    }
    for patch in said["patches"].as_array().into_iter().flatten() {
        apply(&mut objects, patch).with_context(|| format!("{folder}: {patch}"))?;
    }
    Ok(objects)
}

fn resource_of(path: &str, depth: usize) -> anyhow::Result<Vec<Value>> {
    if !path.ends_with(".yaml") {
        return build_within(path, depth - 1);
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read(path)?)?;
    Ok(documents.into_iter().filter(|d| !d.is_null()).collect())
}

/// A path that is relative to a folder of the project.
fn inside(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// With a target: operations on all objects of its kind. Without: an object that names the one that it changes.
fn apply(objects: &mut [Value], patch: &Value) -> anyhow::Result<()> {
    let text = patch["patch"].as_str().context("a patch in place")?;
    let change: Value = serde_saphyr::from_str(text)?;
    let target = match patch["target"].as_object() {
        Some(target) => {
            ensure!(target.keys().eq(["kind"]), "targets are kinds here");
            &patch["target"]
        }
        None => &change,
    };
    let name = &target["metadata"]["name"];
    let mut found = objects
        .iter_mut()
        .filter(|o| {
            o["kind"] == target["kind"] && (name.is_null() || o["metadata"]["name"] == *name)
        })
        .peekable();
    ensure!(found.peek().is_some(), "nothing is patched");
    for object in found {
        match &change {
            Value::Array(operations) => {
                for operation in operations {
                    operate(object, operation)?;
                }
            }
            _ => merge(object, &change, "")?,
        }
    }
    Ok(())
}

/// One operation of RFC 6902.
fn operate(object: &mut Value, operation: &Value) -> anyhow::Result<()> {
    let path = operation["path"].as_str().context("a path")?;
    let (parent, last) = path.rsplit_once('/').context("a path below the root")?;
    // A name with a slash would have to be unescaped.
    ensure!(!path.contains('~'), "escapes are not understood here");
    let place = object.pointer_mut(parent).context("nothing is there")?;
    let value = operation["value"].clone();
    match (operation["op"].as_str(), place) {
        (Some("replace"), place) => {
            let old = place.pointer_mut(&format!("/{last}"));
            *old.context("nothing is replaced")? = value;
        }
        (Some("add"), Value::Object(fields)) => drop(fields.insert(last.to_owned(), value)),
        (Some("add"), Value::Array(items)) if last == "-" => items.push(value),
        (operation, _) => bail!("{operation:?} is not understood here"),
    }
    Ok(())
}

/// A strategic merge; `field` is the name under which the two stand.
fn merge(into: &mut Value, change: &Value, field: &str) -> anyhow::Result<()> {
    let merge_key = MERGE_KEYS.iter().find(|(name, _)| *name == field);
    match (into, change, merge_key) {
        (Value::Object(into), Value::Object(change), _) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value, key)?;
            }
        }
        (Value::Array(into), Value::Array(changes), Some((_, key))) => {
            for change in changes {
                merge_element(into, change, key)?;
            }
        }
        (into, change, _) => *into = change.clone(),
    }
    Ok(())
}

fn merge_element(into: &mut Vec<Value>, change: &Value, key: &str) -> anyhow::Result<()> {
    ensure!(
        change[key].is_string(),
        "an element without {key}: {change}"
    );
    let place = into.iter().position(|item| item[key] == change[key]);
    match (place, change[DIRECTIVE].as_str()) {
        (Some(place), Some("delete")) => drop(into.remove(place)),
        (Some(place), None) => merge(&mut into[place], change, "")?,
        (None, None) => into.push(change.clone()),
        (_, directive) => bail!("{directive:?} finds no {}", change[key]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_go_by_key_and_other_lists_are_replaced() -> anyhow::Result<()> {
        let mut object =
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B"}], "args": [1, 2]});
        let change = json!({"env": [{"name": "B", "$patch": "delete"}, {"name": "A", "value": "2"}, {"name": "C"}], "args": [3]});
        merge(&mut object, &change, "")?;
        let merged = json!({"env": [{"name": "A", "value": "2"}, {"name": "C"}], "args": [3]});
        ensure!(object == merged, "{object}");
        let nothing = json!({"env": [{"name": "Z", "$patch": "delete"}]});
        ensure!(
            merge(&mut object, &nothing, "").is_err(),
            "nothing was deleted"
        );
        Ok(())
    }

    #[test]
    fn operations_change_what_is_there() -> anyhow::Result<()> {
        let mut object = json!({"a": [{"b": 1}]});
        operate(
            &mut object,
            &json!({"op": "replace", "path": "/a/0/b", "value": 2}),
        )?;
        operate(
            &mut object,
            &json!({"op": "add", "path": "/a/-", "value": 3}),
        )?;
        operate(
            &mut object,
            &json!({"op": "add", "path": "/a/0/c", "value": 4}),
        )?;
        ensure!(object == json!({"a": [{"b": 2, "c": 4}, 3]}), "{object}");
        for wrong in ["/a/7/b", "/x"] {
            let operation = json!({"op": "replace", "path": wrong, "value": 0});
            ensure!(operate(&mut object, &operation).is_err(), "{wrong}");
        }
        Ok(())
    }
}
