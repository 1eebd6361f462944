//! Libraries of tasks for workers of another binary.

/// Makes a crate of type `cdylib` a library of tasks, which the stock `dask-worker` loads:
///
/// ```console
/// dask-worker tcp://scheduler:8786 --preload target/release/libtasks.so
/// ```
///
/// The worker then has every `#[dask::task]` function of the crate, as if it were its own: they share their results without
/// copies among each other, know their [`TaskContext`](crate::TaskContext), and panic without taking the worker with them.
/// What passes between them and the worker, or tasks of another library, is bytes and handles; so the two may be built by
/// different compilers, but have to be built with the same release of this crate. A worker that cannot use a library does
/// not start, and says why.
///
/// ```toml
/// [lib]
/// crate-type = ["cdylib"]
/// ```
///
/// ```standalone_crate
/// dask::task_library!();
///
/// #[dask::task]
/// fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
/// # fn main() {}
/// ```
///
/// A program that submits these tasks has them too, as an ordinary dependency: give the crate both types,
/// `crate-type = ["cdylib", "rlib"]`, or keep the tasks in a crate of their own that both depend on. Python programs call
/// them by name.
///
/// What tasks of a library log with `tracing` goes to a subscriber of the library, if it sets one: it has its own copy of
/// every crate, and so its own allocator and runtime.
#[macro_export]
macro_rules! task_library {
    () => {
        /// The tasks of this library, for workers.
        #[unsafe(no_mangle)]
        pub extern "C" fn dask_task_library() -> *const $crate::__private::Table {
            $crate::__private::table()
        }
    };
}
