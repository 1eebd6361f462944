//! What the compiler refuses, each with the same code made right beside it.

/// A value of another type.
///
/// ```compile_fail,E0277
/// #[dask::task]
/// fn double(n: i64) -> i64 { 2 * n }
/// let call = double("two");
/// ```
///
/// ```
/// #[dask::task]
/// fn double_value(n: i64) -> i64 { 2 * n }
/// let call = double_value(2);
/// ```
///
/// A future of another type.
///
/// ```compile_fail,E0277
/// #[dask::task]
/// fn double(n: i64) -> i64 { 2 * n }
/// fn call(text: &dask::Future<String>) -> dask::TaskCall<i64> { double(text) }
/// ```
///
/// ```
/// #[dask::task]
/// fn double_later(n: i64) -> i64 { 2 * n }
/// fn call(number: &dask::Future<i64>) -> dask::TaskCall<i64> { double_later(number) }
/// ```
///
/// Futures of another type in a list.
///
/// ```compile_fail,E0277
/// #[dask::task]
/// fn total(parts: &[i64]) -> i64 { parts.iter().sum() }
/// fn call(texts: Vec<dask::Future<String>>) -> dask::TaskCall<i64> { total(texts) }
/// ```
///
/// ```
/// #[dask::task]
/// fn total_later(parts: &[i64]) -> i64 { parts.iter().sum() }
/// fn call(numbers: Vec<dask::Future<i64>>) -> dask::TaskCall<i64> { total_later(numbers) }
/// ```
///
/// The wrong number of arguments.
///
/// ```compile_fail,E0061
/// #[dask::task]
/// fn double(n: i64) -> i64 { 2 * n }
/// let call = double(1, 2);
/// ```
///
/// A result used as another type.
///
/// ```compile_fail,E0308
/// #[dask::task]
/// fn double(n: i64) -> i64 { 2 * n }
/// fn call(client: &dask::Client) -> dask::Future<String> { client.submit(double(2)) }
/// ```
///
/// Results that cannot leave a worker.
///
/// ```compile_fail,E0277
/// #[dask::task]
/// fn thread() -> std::thread::ThreadId { std::thread::current().id() }
/// ```
///
/// Arguments that other tasks share cannot be changed.
///
/// ```compile_fail
/// #[dask::task]
/// fn push(list: &mut Vec<i64>) { list.push(1) }
/// ```
///
/// A task that is over at once cannot wait.
///
/// ```compile_fail
/// #[dask::task(brief)]
/// async fn double(n: i64) -> i64 { 2 * n }
/// ```
///
/// ```
/// #[dask::task(brief)]
/// fn double_at_once(n: i64) -> i64 { 2 * n }
/// let call = double_at_once(2);
/// ```
///
/// A task is registered under one name and cannot be generic, and has no `self`.
///
/// ```compile_fail
/// #[dask::task]
/// fn same<T>(it: T) -> T { it }
/// ```
///
/// ```compile_fail
/// struct S;
/// impl S {
///     #[dask::task]
///     fn method(&self) -> i64 { 1 }
/// }
/// ```
pub struct Refused;
