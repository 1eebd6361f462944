#[dask::task]
fn double(n: i64) -> i64 {
    2 * n
}

fn call(client: &dask::Client) -> dask::Future<String> {
    client.submit(double(2))
}

fn main() {}
