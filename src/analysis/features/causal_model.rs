//! A causal model: variables, a function for each, and interventions on them.
//!
//! Geiger et al. 2021, "Causal Abstractions of Neural Networks",
//! <https://arxiv.org/abs/2106.02997>: the hypothesis about a model that interchange interventions test.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

type Function = Arc<dyn Fn(&CausalValues) -> Result<i64> + Send + Sync>;

/// Values of inputs and variables by name; tokens are given by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CausalValues(BTreeMap<String, i64>);

impl CausalValues {
    /// The value of an input or of a variable that stands before; else an error that lists them.
    pub fn get(&self, name: &str) -> Result<i64> {
        self.0.get(name).copied().with_context(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!("no value {name:?}: there are {}", known.join(", "))
        })
    }
}

/// Inputs, then variables, each a function of what stands before it; the last is the output.
///
/// ```
/// use thalweg::CausalModel;
/// let model = CausalModel::new(&["a", "b", "c"])?
///     .variable("sum", |v| Ok(v.get("a")? + v.get("b")?))?
///     .variable("answer", |v| Ok(v.get("sum")? * v.get("c")?))?;
/// assert_eq!(model.output(&[1, 2, 5])?, 15);
/// // The base's own c, the source's sum.
/// assert_eq!(model.interchange(&[1, 2, 5], &[4, 4, 9], &["sum"])?, 40);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct CausalModel {
    inputs: Vec<String>,
    variables: Vec<(String, Function)>,
}

impl CausalModel {
    /// A model of these inputs and no variables yet.
    pub fn new(inputs: &[&str]) -> Result<Self> {
        let mut model = CausalModel { inputs: Vec::new(), variables: Vec::new() };
        for input in inputs {
            model.check_new(input)?;
            model.inputs.push((*input).to_owned());
        }
        Ok(model)
    }

    /// One more variable, a function of the inputs and of the variables before it.
    pub fn variable(
        mut self,
        name: &str,
        function: impl Fn(&CausalValues) -> Result<i64> + Send + Sync + 'static,
    ) -> Result<Self> {
        self.check_new(name)?;
        self.variables.push((name.to_owned(), Arc::new(function)));
        Ok(self)
    }

    /// Every value that follows from the inputs.
    pub fn run(&self, inputs: &[i64]) -> Result<CausalValues> {
        self.run_with(inputs, &BTreeMap::new())
    }

    /// The last variable's value.
    pub fn output(&self, inputs: &[i64]) -> Result<i64> {
        self.last(&self.run(inputs)?)
    }

    /// The output for `base` when `variables` have the values that they have for `source`: what an
    /// interchange intervention should make the model say.
    pub fn interchange(&self, base: &[i64], source: &[i64], variables: &[&str]) -> Result<i64> {
        let source = self.run(source)?;
        let mut fixed = BTreeMap::new();
        for name in variables {
            let known = self.variables.iter().any(|(own, _)| own == name);
            ensure!(known, "{self:?} has no variable {name:?}");
            fixed.insert((*name).to_owned(), source.get(name)?);
        }
        self.last(&self.run_with(base, &fixed)?)
    }

    fn run_with(&self, inputs: &[i64], fixed: &BTreeMap<String, i64>) -> Result<CausalValues> {
        ensure!(
            inputs.len() == self.inputs.len(),
            "{} inputs for {self:?}, expected {}",
            inputs.len(),
            self.inputs.len()
        );
        let own = self.inputs.iter().cloned().zip(inputs.iter().copied());
        let mut values = CausalValues(own.collect());
        for (name, function) in &self.variables {
            let value = match fixed.get(name) {
                Some(value) => *value,
                None => function(&values).map_err(|error| {
                    anyhow::anyhow!("variable {name:?} of inputs {inputs:?}: {error:#}")
                })?,
            };
            values.0.insert(name.clone(), value);
        }
        Ok(values)
    }

    fn last(&self, values: &CausalValues) -> Result<i64> {
        let (name, _) = self.variables.last().context("the causal model has no variables")?;
        values.get(name)
    }

    fn check_new(&self, name: &str) -> Result<()> {
        let known = self.inputs.iter().chain(self.variables.iter().map(|(own, _)| own));
        ensure!(known.into_iter().all(|own| own != name), "{name:?} is named twice in {self:?}");
        Ok(())
    }
}

/// One line: `CausalModel(a, b -> sum -> answer)`.
impl fmt::Debug for CausalModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CausalModel({}", self.inputs.join(", "))?;
        self.variables.iter().try_for_each(|(name, _)| write!(f, " -> {name}"))?;
        f.write_str(")")
    }
}
