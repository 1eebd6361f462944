#[dask::task(brief)]
async fn double(n: i64) -> i64 {
    2 * n
}

fn main() {}
