//! The comparison as a table in Markdown.

use super::{Row, THREADS, geometric_mean};

/// One line for each graph; the last one has geometric means.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| graph | tasks | held by 1 thread: dask | ours | ratio");
    for threads in &THREADS[1..] {
        text += &format!(" | {threads} threads: makespan, dask | ours | ratio | held, dask | ours | ratio");
    }
    text += " |\n|---|--:";
    text += &"|--:".repeat(3 + 6 * (THREADS.len() - 1));
    text += "|\n";
    for row in rows {
        text += &format!("| {} | {}", row.name, row.tasks);
        for (place, (dask, ours)) in row.dask.iter().zip(&row.ours).enumerate() {
            if place > 0 {
                text += &cells(dask.makespan, ours.makespan);
            }
            text += &cells(dask.peak, ours.peak);
        }
        text += " |\n";
    }
    text += &means(rows);
    text
}

fn cells(dask: f64, ours: f64) -> String {
    format!(" | {dask:.1} | {ours:.1} | {:.2}", ratio(dask, ours))
}

fn ratio(dask: f64, ours: f64) -> f64 {
    if dask == ours { 1.0 } else { ours / dask }
}

fn means(rows: &[Row]) -> String {
    let mut text = String::from("| geometric mean | ");
    for place in 0..THREADS.len() {
        if place > 0 {
            let makespan = geometric_mean(rows, |row| ratio(row.dask[place].makespan, row.ours[place].makespan));
            text += &format!(" | | | {makespan:.3}");
        }
        let peak = geometric_mean(rows, |row| ratio(row.dask[place].peak, row.ours[place].peak));
        text += &format!(" | | | {peak:.3}");
    }
    text + " |\n"
}
