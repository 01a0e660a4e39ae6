"""Solutions as they are read from text cells. Needs nothing but Python."""

import unittest

import solutions

TWO = """**Exercises**

1. Which?
2. Why?

<details><summary>Solution 1</summary>

```rust
let a = 1;
```

Then:

```rust
{
    let b = a + 1;
}
```

```text
no code
```
</details>

<details>
<summary>Solution 2: the other</summary>

```rust
println!("{}", "<details>");
```
</details>
"""


def text(source):
    return {"cell_type": "markdown", "source": source}


class Solutions(unittest.TestCase):
    def test_each_fence_of_each_solution_is_found_in_order(self):
        found = solutions.of_cells([text("# Title"), text(TWO.splitlines(keepends=True))])
        self.assertEqual([one.number for one in found], [1, 2])
        self.assertEqual(found[0].fences, ["let a = 1;", "{\n    let b = a + 1;\n}"])
        self.assertEqual(found[1].fences, ['println!("{}", "<details>");'])

    def test_other_asides_and_code_cells_hold_none(self):
        aside = text("<details><summary>How this misleads</summary>\n\n```rust\nlet a = 1;\n```\n</details>")
        self.assertEqual(solutions.of_cells([aside, {"cell_type": "code", "source": TWO}]), [])

    def test_numbers_that_skip_solutions_without_code_and_open_ends_are_errors(self):
        for wrong, words in [
            (TWO.replace("Solution 2", "Solution 3"), "solution 3 stands where solution 2 should"),
            (TWO.replace("```rust\nprintln", "```\nprintln"), "solution 2 has no fence"),
            (TWO.rsplit("</details>", 1)[0], "is not"),
        ]:
            with self.assertRaisesRegex(ValueError, words):
                solutions.of_cells([text(wrong)])


if __name__ == "__main__":
    unittest.main()
