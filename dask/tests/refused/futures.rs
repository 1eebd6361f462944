#[dask::task]
fn total(parts: &[i64]) -> i64 {
    parts.iter().sum()
}

fn call(texts: Vec<dask::Future<String>>) {
    let _ = total(texts);
}

fn main() {}
