//! What reading expositions costs: the lines alone, and until they are a request that can be stored.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{fmt::Write, hint::black_box};
use trefoil_api::{
    WriteLimits,
    exposition::{Dialect, ImportOptions, Parser, import_text},
    influx::{Precision, import_lines},
    remote_write::WriteRequest,
};

const LINES: usize = 10_000;

/// Lines as a web server's counters give them, about 110 bytes each.
fn text() -> String {
    let mut text = "# HELP http_requests Requests.\n# TYPE http_requests counter\n".to_owned();
    for i in 0..LINES {
        let (path, pod) = (i % 50, i / 50);
        let labels = format!("code=\"200\",handler=\"/api/v1/resource/{path}\",method=\"GET\"");
        // Writing into memory does not fail.
        writeln!(
            text,
            "http_requests_total{{{labels},pod=\"frontend-7d9c5b8f6-{pod:05}\"}} {i}.25"
        )
        .ok();
    }
    text + "# EOF\n"
}

/// As many samples as line protocol: four fields a line.
fn lines() -> String {
    let mut text = String::new();
    for i in 0..LINES / 4 {
        let tags = format!("cpu=cpu{i},host=frontend-7d9c5b8f6-{i:05},region=eu-west");
        writeln!(
            text,
            "cpu,{tags} usage_user={i}.5,usage_system=2.25,usage_idle=90.125,usage_iowait=3i \
             1700000000000000000"
        )
        .ok();
    }
    text
}

fn read(criterion: &mut Criterion) {
    let limits = WriteLimits::default();
    let options = ImportOptions::default();
    let (text, lines) = (text(), lines());
    println!(
        "{LINES} samples: {} bytes of text, {} of lines",
        text.len(),
        lines.len()
    );
    let mut request = WriteRequest::default();
    for throughput in [
        Throughput::Elements(LINES as u64),
        Throughput::Bytes(text.len() as u64),
    ] {
        let unit = match throughput {
            Throughput::Bytes(_) => "bytes",
            _ => "samples",
        };
        let mut group = criterion.benchmark_group(format!("exposition, {unit}"));
        group.throughput(throughput);
        for (name, dialect) in [
            ("text", Dialect::Text),
            ("OpenMetrics", Dialect::OpenMetrics),
        ] {
            group.bench_function(format!("{name}, lines alone"), |bencher| {
                bencher.iter(|| {
                    let parser = Parser::new(black_box(text.as_bytes()), dialect);
                    let Ok(mut parser) = parser else { return };
                    while let Ok(Some(entry)) = parser.next_entry() {
                        black_box(&entry);
                    }
                });
            });
            group.bench_function(format!("{name}, to a request"), |bencher| {
                bencher.iter(|| {
                    let text = black_box(text.as_bytes());
                    let outcome = import_text(text, dialect, &options, &limits, &mut request);
                    assert!(outcome.is_ok() && request.sample_count() == LINES);
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("line protocol, samples");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("to a request", |bencher| {
        bencher.iter(|| {
            let precision = Precision::default();
            let lines = black_box(lines.as_bytes());
            let outcome = import_lines(lines, precision, &options, &limits, &mut request);
            assert!(outcome.is_ok() && request.sample_count() == LINES);
        });
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
