//! Annotations: what the user attached to tasks, resolved for each task.
//!
//! Most graphs have none or the same for all tasks, so tasks with equal annotations share one [`Annotations`].

use std::sync::Arc;

use dask_protocol::Value;
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::error::IntakeError;
use super::timedelta::parse_timedelta;
use crate::graph::helper::AnnotationColumn;
use crate::state::Annotations;

/// The annotations of every task of a graph, by position.
#[derive(Debug)]
pub(super) enum Table {
    /// All tasks have the same.
    Uniform(Arc<Annotations>),
    /// Which of the distinct annotations each task has.
    PerTask { distinct: Vec<Arc<Annotations>>, of_task: Vec<u32> },
}

impl Table {
    /// From annotations of the whole graph and columns that name `tasks` tasks by position and go before them. `priority`
    /// is for tasks without that annotation.
    ///
    /// # Errors
    /// [`IntakeError::Field`] when an annotation has the wrong type.
    pub(super) fn new(
        general: &[(String, Value)],
        columns: &[AnnotationColumn],
        tasks: usize,
        priority: f64,
    ) -> Result<Table, IntakeError> {
        if columns.is_empty() {
            return Ok(Table::Uniform(Arc::new(read(general.to_vec(), priority)?)));
        }
        let mut cells: Vec<Vec<(usize, u32)>> = vec![Vec::new(); tasks];
        for (column, AnnotationColumn { entries, .. }) in columns.iter().enumerate() {
            for &(task, value) in entries {
                if let Some(cells) = cells.get_mut(task as usize) {
                    cells.push((column, value));
                }
            }
        }
        let mut number_of: IndexMap<Vec<(usize, u32)>, u32, FxBuildHasher> = IndexMap::default();
        let mut of_task = Vec::with_capacity(tasks);
        for cells in cells {
            let next = u32::try_from(number_of.len()).expect("fewer combinations than tasks");
            of_task.push(*number_of.entry(cells).or_insert(next));
        }
        let combine = |cells: &Vec<(usize, u32)>| {
            let own =
                cells.iter().map(|&(column, value)| (&columns[column].name, &columns[column].values[value as usize]));
            let inherited = general.iter().filter(|(name, _)| !own.clone().any(|(own, _)| own == name));
            let entries = inherited.map(|(name, value)| (name, value)).chain(own.clone());
            let entries = entries.map(|(name, value)| (name.clone(), value.clone())).collect();
            read(entries, priority).map(Arc::new)
        };
        Ok(Table::PerTask { distinct: number_of.keys().map(combine).collect::<Result<_, _>>()?, of_task })
    }

    /// The annotations of the task at this position.
    pub(super) fn of(&self, task: usize) -> Arc<Annotations> {
        match self {
            Table::Uniform(annotations) => Arc::clone(annotations),
            Table::PerTask { distinct, of_task } => Arc::clone(&distinct[of_task[task] as usize]),
        }
    }
}

/// Decodes the annotations of one task.
fn read(mut entries: Vec<(String, Value)>, priority: f64) -> Result<Annotations, IntakeError> {
    let mut annotations = Annotations { priority, ..Annotations::default() };
    for (name, value) in &mut entries {
        let wrong = |expected| IntakeError::field(format!("annotation {name:?}"), expected, value);
        match name.as_str() {
            "priority" => annotations.priority = number(value).ok_or_else(|| wrong("a number"))?,
            "retries" => annotations.retries = count(value).ok_or_else(|| wrong("an integer"))?,
            "workers" | "restrictions" => {
                annotations.workers = names(value).ok_or_else(|| wrong("a worker or a list of workers"))?;
            }
            "allow_other_workers" | "loose_restrictions" => annotations.allow_other_workers = truth(value),
            "resources" => annotations.resources = amounts(value).ok_or_else(|| wrong("a dict of numbers"))?,
            "stealable" => annotations.stealable = value.as_bool(),
            "timeout" => {
                let seconds = limit(value).ok_or_else(|| wrong("a positive duration, such as 5 or \"5s\""))?;
                annotations.timeout = seconds;
                // What workers read.
                *value = seconds.into();
            }
            "span" => annotations.span_ids = span_ids(value).ok_or_else(|| wrong("a span"))?,
            // Unknown ones are the user's own: echoed to the worker, not interpreted.
            _ => {}
        }
    }
    if !entries.is_empty() {
        annotations.echoed = Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect());
    }
    Ok(annotations)
}

/// Python counts booleans among the numbers.
fn number(value: &Value) -> Option<f64> {
    value.as_bool().map(|b| f64::from(u8::from(b))).or_else(|| value.as_f64())
}

/// Seconds; nil for no limit.
fn limit(value: &Value) -> Option<Option<f64>> {
    if value.is_nil() {
        return Some(None);
    }
    parse_timedelta(value).filter(|seconds| seconds.is_finite() && *seconds > 0.0).map(Some)
}

/// A negative number of retries is none.
fn count(value: &Value) -> Option<u32> {
    let count = value.as_bool().map(i64::from).or_else(|| value.as_i64())?;
    Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

/// Python's `bool(value)` for the values that occur.
fn truth(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Bool(b) => *b,
        Value::Int(i) => *i != 0,
        Value::UInt(u) => *u != 0,
        Value::Float(f) => *f != 0.0,
        Value::Str(s) => !s.is_empty(),
        Value::Bin(b) => !b.is_empty(),
        Value::Array(items) | Value::Set(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        Value::Enum(_) | Value::Payload(_) => true,
    }
}

/// Worker names may be numbers, as those of a local cluster are.
fn name(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

fn names(value: &Value) -> Option<Vec<String>> {
    match value.as_items() {
        Some(items) => items.iter().map(name).collect(),
        None if value.is_nil() => Some(Vec::new()),
        None => name(value).map(|name| vec![name]),
    }
}

fn amounts(value: &Value) -> Option<Vec<(String, f64)>> {
    let Value::Map(entries) = value else { return None };
    entries.iter().map(|(name, amount)| Some((name.as_str()?.to_owned(), number(amount)?))).collect()
}

fn span_ids(value: &Value) -> Option<Vec<String>> {
    let ids = value.get("ids")?.as_items()?;
    ids.iter().map(|id| id.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: Value) -> Result<Annotations, IntakeError> {
        read(vec![(name.to_owned(), value)], 0.0)
    }

    #[test]
    fn known_annotations_are_decoded_and_everything_is_echoed() {
        let entries = [
            ("priority", Value::Int(3)),
            ("retries", Value::Int(2)),
            ("workers", Value::from(vec!["alice", "tcp://h:1"])),
            ("allow_other_workers", Value::Bool(true)),
            ("resources", Value::map([("GPU", Value::Int(1))])),
            ("span", Value::map([("name", Value::from(vec!["a"])), ("ids", Value::from(vec!["1", "2"]))])),
            ("mine", "x".into()),
        ];
        let read =
            read(entries.clone().map(|(name, value)| (name.to_owned(), value)).to_vec(), 7.0).expect("well formed");
        assert!((read.priority - 3.0).abs() < f64::EPSILON);
        assert_eq!(read.retries, 2);
        assert_eq!(read.workers, ["alice", "tcp://h:1"]);
        assert!(read.allow_other_workers);
        assert_eq!(read.resources, [("GPU".to_owned(), 1.0)]);
        assert_eq!(read.span_ids, ["1", "2"]);
        assert_eq!(read.echoed, Value::map(entries));
    }

    #[test]
    fn one_worker_needs_no_list_and_numbers_are_names() {
        assert_eq!(one("workers", "alice".into()).expect("text").workers, ["alice"]);
        assert_eq!(one("workers", Value::Int(0)).expect("number").workers, ["0"]);
        assert_eq!(one("workers", Value::Nil).expect("none").workers, Vec::<String>::new());
    }

    #[test]
    fn a_timeout_is_a_positive_duration_that_workers_get_in_seconds() {
        let read = one("timeout", "500ms".into()).expect("a duration");
        assert_eq!(read.timeout, Some(0.5));
        assert_eq!(read.echoed, Value::map([("timeout", Value::Float(0.5))]));
        assert_eq!(one("timeout", Value::Int(5)).expect("seconds").timeout, Some(5.0));
        assert_eq!(one("timeout", Value::Nil).expect("none").timeout, None);
        for wrong in ["soon".into(), Value::Int(0), Value::Int(-1), Value::Float(f64::NAN)] {
            assert!(one("timeout", wrong).is_err());
        }
    }

    #[test]
    fn wrong_types_are_errors_that_name_the_annotation() {
        let error = one("retries", "many".into()).expect_err("text is no number");
        assert_eq!(error.to_string(), r#"annotation "retries" must be an integer, not Str("many")"#);
        assert!(one("resources", Value::Int(1)).is_err());
        assert!(one("priority", Value::Nil).is_err());
    }

    #[test]
    fn tasks_with_equal_annotations_share_them() {
        let column = |name: &str, values: Vec<Value>, entries: &[(u32, u32)]| AnnotationColumn {
            name: name.to_owned(),
            values,
            entries: entries.to_vec(),
        };
        let columns = [
            column("priority", vec![Value::Int(1), Value::Int(2)], &[(0, 0), (1, 0), (3, 1)]),
            column("retries", vec![Value::Int(5)], &[(1, 0)]),
        ];
        let general = [("retries".to_owned(), Value::Int(1))];
        let table = Table::new(&general, &columns, 5, 9.0).expect("well formed");
        let priorities: Vec<f64> = (0..5).map(|task| table.of(task).priority).collect();
        assert_eq!(priorities, [1.0, 1.0, 9.0, 2.0, 9.0]);
        assert_eq!((table.of(0).retries, table.of(1).retries, table.of(4).retries), (1, 5, 1));
        assert!(Arc::ptr_eq(&table.of(2), &table.of(4)));
    }
}
