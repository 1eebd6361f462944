#[dask::task]
fn double(n: i64) -> i64 {
    2 * n
}

fn main() {
    let _ = double("two");
}
