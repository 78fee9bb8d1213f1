//! The page around the picture.

use super::{
    bins::{Bins, FATES, SORTS},
    escape, picture,
};
use crate::{
    checker::{Row, Verdict},
    history::{History, Micros},
};
use serde_json::json;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

pub(super) fn render(history: &History, verdict: &Verdict) -> String {
    let bins = Bins::new(history);
    let run = &verdict.run;
    let title = format!("Trefoil under attack: seed {}", run.seed);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>\n{STYLE}</style></head><body>\n"
    );
    let (class, badge) = match verdict.violations_count {
        0 => ("good", "every promise was kept".to_owned()),
        1 => ("bad", "1 violation".to_owned()),
        count => ("bad", format!("{count} violations")),
    };
    let _written = write!(
        page,
        "<header><div><h1>{title}</h1><p class=\"soft\">{} nodes ({}), workloads {}, {} kinds of faults, {} faults, {} \
         operations, clients at work for {}</p></div><span class=\"badge {class}\">{badge}</span></header>",
        run.nodes.len(),
        escape(&run.hosts),
        escape(&run.workloads.join(", ")),
        run.faults.len(),
        history.faults.len(),
        verdict.total.operations,
        seconds(run.duration, 0),
    );
    page.push_str(&timeline(history, verdict, &bins));
    page.push_str(&violations(verdict));
    page.push_str(&table(verdict));
    page.push_str(&replay(verdict));
    let _written = write!(
        page,
        "<div id=\"tip\"></div><script type=\"application/json\" id=\"bins\">{}</script><script>\n{SCRIPT}</script>\
         </body></html>\n",
        data(history, &bins),
    );
    page
}

fn violations(verdict: &Verdict) -> String {
    if verdict.violations.is_empty() {
        return String::new();
    }
    let mut text = "<section><h2>What must not be</h2><ol>".to_owned();
    for violation in &verdict.violations {
        let (checker, words) = (violation.checker, escape(&violation.text));
        let _written = write!(text, "<li><b>{checker}</b> {words}</li>");
    }
    text.push_str("</ol>");
    let more = verdict.violations_count - verdict.violations.len() as u64;
    if more > 0 {
        let _written = write!(text, "<p class=\"soft\">and {more} more</p>");
    }
    text + "</section>\n"
}

fn timeline(history: &History, verdict: &Verdict, bins: &Bins) -> String {
    let picture = picture::draw(history, verdict, bins);
    let mut text = "<section><h2>Operations and faults</h2><div class=\"legend\">".to_owned();
    let told = [
        "done",
        "answered incompletely, and said so",
        "fate unknown",
        "failed",
    ];
    for (fate, words) in FATES.iter().zip(told) {
        let _written = write!(text, "<span><i class=\"{fate}\"></i>{words}</span>");
    }
    let _written = write!(
        text,
        "<span><i class=\"erring line\"></i>somebody waits for an error</span><span><i class=\"fault\"></i>a fault strikes \
         the node, hatched until it is ready</span></div><div class=\"picture\"><div class=\"labels\" \
         style=\"height:{}px\">",
        picture.height
    );
    for (words, node, y) in picture.labels {
        let class = if node { "node" } else { "lane" };
        let words = escape(&words);
        let _written = write!(
            text,
            "<span class=\"{class}\" style=\"top:{y}px\">{words}</span>"
        );
    }
    let svg = picture.svg;
    let _written = write!(
        text,
        "</div><div class=\"scroll\">{svg}</div></div></section>"
    );
    text
}

fn table(verdict: &Verdict) -> String {
    let heads = [
        "fault",
        "times",
        "operations",
        "acknowledged",
        "lost",
        "phantom",
        "silently<br>incomplete",
        "declared<br>incomplete",
        "longest error window<br>at untouched nodes",
        "<br>at any node",
    ];
    let heads: String = heads
        .iter()
        .map(|head| format!("<th>{head}</th>"))
        .collect();
    let mut text = format!(
        "<section><h2>Per kind of fault</h2><div class=\"table\"><table><thead><tr>{heads}</tr></thead><tbody>"
    );
    for row in &verdict.rows {
        let _written = write!(text, "<tr>{}</tr>", cells(row));
    }
    let total = cells(&verdict.total);
    let _written = write!(
        text,
        "<tr class=\"total\">{total}</tr></tbody></table></div></section>"
    );
    text
}

fn cells(row: &Row) -> String {
    let count = |count: u64| match count {
        0 => "<td class=\"zero\">0</td>".to_owned(),
        count => format!("<td>{count}</td>"),
    };
    let broken = |broken: u64| match broken {
        0 => count(0),
        broken => format!("<td class=\"bad\">{broken}</td>"),
    };
    let window = |window: Micros| match window {
        0 => "<td class=\"zero\">-</td>".to_owned(),
        window => format!("<td>{}</td>", seconds(window, 2)),
    };
    [
        format!("<td>{}</td>", escape(&row.kind)),
        count(row.faults),
        count(row.operations),
        count(row.acknowledged),
        broken(row.lost),
        broken(row.phantom),
        broken(row.incomplete_silent),
        count(row.incomplete_declared),
        window(row.window_untouched),
        window(row.window_anywhere),
    ]
    .concat()
}

fn replay(verdict: &Verdict) -> String {
    let run = &verdict.run;
    format!(
        "<section><h2>Again</h2><pre>trefoil-jepsen run --replay schedule.json --time {}s --workload {}   # the faults of \
         this run\ntrefoil-jepsen run --seed {} --nodes {} --time {}s --workload {} --nemesis {}\ntrefoil-jepsen check \
         history.jsonl   # judge its history again</pre></section>\n",
        run.duration / 1_000_000,
        escape(&run.workloads.join(",")),
        run.seed,
        run.nodes.len(),
        run.duration / 1_000_000,
        escape(&run.workloads.join(",")),
        escape(&run.faults.join(",")),
    )
}

/// What the script shows; bins without operations are 0.
fn data(history: &History, bins: &Bins) -> String {
    let lanes = bins.lanes.iter().map(|lane| {
        let counts = lane.counts.iter().map(|fates| match fates {
            [0, 0, 0, 0] => json!(0),
            fates => json!(fates),
        });
        json!({
            "name": format!("{} {}", history.node_name(lane.node), SORTS[lane.sort]),
            "counts": counts.collect::<Vec<_>>(),
        })
    });
    let lanes: Vec<_> = lanes.collect();
    let data = json!({ "count": bins.count, "end": bins.end, "fates": FATES, "lanes": lanes });
    // A name of a node could end the script.
    data.to_string().replace('<', "\\u003c")
}

fn seconds(time: Micros, digits: usize) -> String {
    format!("{:.digits$} s", time as f64 / 1e6)
}
