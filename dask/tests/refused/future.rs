#[dask::task]
fn double(n: i64) -> i64 {
    2 * n
}

fn call(text: &dask::Future<String>) {
    let _ = double(text);
}

fn main() {}
