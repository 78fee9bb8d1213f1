//! Commands of a test file.

use super::sequence::{Sequence, number, series};
use crate::{Grid, parse::duration_seconds};
use regex::Regex;
use std::{fmt, sync::LazyLock};
use trefoil_model::Millis;

/// A command and the line, counted from one, where it begins.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) kind: CommandKind,
}

#[derive(Clone, Debug)]
pub(super) enum CommandKind {
    Clear,
    Load {
        step: Millis,
        series: Vec<Sequence>,
        /// Classic histograms are to be loaded as native ones too.
        as_native: bool,
    },
    Eval(Box<Eval>),
}

/// An evaluation and what it should give.
#[derive(Clone, Debug)]
pub(super) struct Eval {
    pub(super) query: String,
    pub(super) grid: Grid,
    pub(super) is_range: bool,
    pub(super) expected: Expected,
}

/// What an evaluation should give.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) series: Vec<Sequence>,
    pub(super) scalar: Option<f64>,
    pub(super) string: Option<String>,
    /// The times of the values, when a range vector is expected of an instant query.
    pub(super) range_vector: Option<Grid>,
    pub(super) ordered: bool,
    pub(super) fail: Option<Vec<Text>>,
    pub(super) warnings: Remarks,
    pub(super) infos: Remarks,
}

/// What is expected of warnings or infos.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    pub(super) none: bool,
    pub(super) some: bool,
    pub(super) texts: Vec<Text>,
}

/// A text, or an expression that some text matches.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Exactly(String),
    Matching(Regex),
}

impl Text {
    pub(super) fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected == text,
            Self::Matching(regex) => regex.is_match(text),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => write!(f, "{text:?}"),
            Self::Matching(regex) => write!(f, "what matches {:?}", regex.as_str()),
        }
    }
}

static INSTANT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$").ok()
});
static RANGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+?)\s+to\s+(.+?)\s+step\s+(.+?)\s+(.+)$",
    )
    .ok()
});
static RANGE_VECTOR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^expect range vector\s+from\s+(.+?)\s+to\s+(.+?)\s+step\s+(.+)$").ok()
});

/// Parses a whole file.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        // A comment ends a block, as an empty line does.
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (line, number) = (lines[at], at + 1);
        at += 1;
        if line.is_empty() {
            continue;
        }
        let block: Vec<&str> = lines[at..]
            .iter()
            .copied()
            .take_while(|line| !line.is_empty())
            .collect();
        let word = line.split_whitespace().next().unwrap_or_default();
        let kind = match word {
            "clear" => Ok(CommandKind::Clear),
            "load" | "load_with_nhcb" => load(line, &block),
            _ if word.starts_with("eval") => {
                eval(line, &block).map(|eval| CommandKind::Eval(Box::new(eval)))
            }
            _ => Err(format!("unknown command {word:?}").into()),
        };
        if word != "clear" {
            at += block.len();
        }
        let kind =
            kind.map_err(|wrong| format!("line {}: {}", number + wrong.below, wrong.reason))?;
        commands.push(Command { line: number, kind });
    }
    Ok(commands)
}

/// What cannot be read of a command, and how far below its first line that is.
struct Wrong {
    below: usize,
    reason: String,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(reason: T) -> Self {
        Self {
            below: 0,
            reason: reason.into(),
        }
    }
}

/// Reads the lines of a command's block.
fn each_line<T>(
    block: &[&str],
    mut read: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, Wrong> {
    let lines = block.iter().zip(1..);
    let read = lines.map(|(line, below)| read(line).map_err(|reason| Wrong { below, reason }));
    read.collect()
}

fn load(line: &str, block: &[&str]) -> Result<CommandKind, Wrong> {
    let step = line.split_whitespace().nth(1).ok_or("load has no step")?;
    let series = each_line(block, series)?;
    Ok(CommandKind::Load {
        step: time(step)?,
        series,
        as_native: line.starts_with("load_with_nhcb"),
    })
}

fn eval(line: &str, block: &[&str]) -> Result<Eval, Wrong> {
    let captures = |pattern: &LazyLock<Option<Regex>>| {
        let pattern = LazyLock::force(pattern).as_ref();
        pattern.and_then(|pattern| pattern.captures(line))
    };
    let (mode, query, grid, is_range) = if let Some(found) = captures(&INSTANT) {
        let at = found.get(2).map_or(Ok(0), |at| time(at.as_str()))?;
        (found.get(1), found[3].to_owned(), Grid::instant(at), false)
    } else if let Some(found) = captures(&RANGE) {
        let grid = Grid::range(time(&found[2])?, time(&found[3])?, time(&found[4])?);
        let grid = grid.map_err(|error| error.to_string())?;
        (found.get(1), found[5].to_owned(), grid, true)
    } else {
        return Err(format!("cannot read {line:?}").into());
    };
    let mut expected = Expected::default();
    match mode.map(|mode| mode.as_str()) {
        Some("fail") => expected.fail = Some(Vec::new()),
        Some("warn") => expected.warnings.some = true,
        Some("info") => expected.infos.some = true,
        Some("ordered") => expected.ordered = true,
        _ => {}
    }
    each_line(block, |line| expectation(line, &mut expected))?;
    Ok(Eval {
        query,
        grid,
        is_range,
        expected,
    })
}

fn expectation(line: &str, expected: &mut Expected) -> Result<(), String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        let text = Text::Exactly(message.trim().to_owned());
        expected.fail.get_or_insert_default().push(text);
        return Ok(());
    }
    if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        expected
            .fail
            .get_or_insert_default()
            .push(matching(pattern)?);
        return Ok(());
    }
    if line.split_whitespace().next() == Some("expect") {
        return expect(line, line["expect".len()..].trim(), expected);
    }
    if let Some(value) = number(line) {
        expected.scalar = Some(value);
        return Ok(());
    }
    expected.series.push(series(line)?);
    Ok(())
}

fn expect(line: &str, rest: &str, expected: &mut Expected) -> Result<(), String> {
    let word = rest.split_whitespace().next().unwrap_or_default();
    let detail = rest[word.len()..].trim();
    let text = if let Some(message) = detail.strip_prefix("msg:") {
        Some(Text::Exactly(message.trim().to_owned()))
    } else if let Some(pattern) = detail.strip_prefix("regex:") {
        Some(matching(pattern)?)
    } else {
        None
    };
    match word {
        "fail" => expected.fail.get_or_insert_default().extend(text),
        "ordered" => expected.ordered = true,
        "no_warn" => expected.warnings.none = true,
        "no_info" => expected.infos.none = true,
        "warn" | "info" => {
            let remarks = if word == "warn" {
                &mut expected.warnings
            } else {
                &mut expected.infos
            };
            remarks.some = true;
            remarks.texts.extend(text);
        }
        "string" => {
            let quoted = crate::parse(detail, &crate::EvalOptions::default());
            match quoted.map(|expr| expr.kind) {
                Ok(crate::ast::ExprKind::String(text)) => expected.string = Some(text.shown()),
                _ => return Err(format!("cannot read the text in {line:?}")),
            }
        }
        "range" => {
            let pattern = LazyLock::force(&RANGE_VECTOR).as_ref();
            let found = pattern.and_then(|pattern| pattern.captures(line));
            let found = found.ok_or_else(|| format!("cannot read {line:?}"))?;
            let grid = Grid::range(time(&found[1])?, time(&found[2])?, time(&found[3])?);
            expected.range_vector = Some(grid.map_err(|error| error.to_string())?);
        }
        _ => return Err(format!("unknown expectation in {line:?}")),
    }
    Ok(())
}

fn matching(pattern: &str) -> Result<Text, String> {
    let regex = Regex::new(pattern.trim()).map_err(|error| error.to_string())?;
    Ok(Text::Matching(regex))
}

/// `10m`, `-5s`, `0`, `1.5`: milliseconds.
fn time(text: &str) -> Result<Millis, String> {
    let text = text.trim();
    if let Some(positive) = text.strip_prefix('-') {
        return time(positive).map(|time| -time);
    }
    let seconds = match number(text) {
        Some(seconds) => seconds,
        None => duration_seconds(text)?,
    };
    Ok((seconds * 1000.0).round() as Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named_by_its_own_line() {
        let check = |text: &str, expected: &str| {
            let error = commands(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        };
        check("clear\n\nload 1m\n  a 1\n  b 1 x\n", "line 5: ");
        check("load 1m\n  a{ 1\n", "line 2: ");
        check("load\n  a 1\n", "line 1: load has no step");
        check(
            "load 5\n  a 1\n\neval instant at 5m a\n  a 1\n  a{ 1\n",
            "line 6: ",
        );
        check("eval instant at x a\n  a 1\n", "line 1: ");
        check("# a comment\nclear\nwombat\n", "line 3: unknown command");
    }
}
