"""Executed notebooks made fit to be committed: what papermill and the clock left goes, pictures stay."""

from nbformat import NotebookNode, validate

INJECTED = "injected-parameters"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
TRACES = ("papermill", "execution", "ExecuteTime")  # metadata of cells that differs between equal runs


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """A copy without injected cells, timings and widget state, with execution counts 1, 2, 3 ...

    The cell tagged `parameters` stays as it is. Raises nbformat's ValidationError for what is no notebook.
    """
    cells = [_cleaned_cell(cell) for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", [])]
    _renumber(cells)
    language = {"name": "python", **notebook.metadata.get("language_info", {})}
    language.pop("version", None)  # of the machine, not of the notebook
    result = NotebookNode(
        cells=cells,
        metadata=NotebookNode(kernelspec=NotebookNode(KERNELSPEC), language_info=NotebookNode(language)),
        nbformat=notebook.nbformat,
        nbformat_minor=notebook.nbformat_minor,
    )
    validate(result)
    return result


def _cleaned_cell(cell: NotebookNode) -> NotebookNode:
    metadata = {key: value for key, value in cell.metadata.items() if key not in TRACES}
    if not metadata.get("tags", True):
        del metadata["tags"]  # papermill adds an empty list to every cell
    result = NotebookNode({**cell, "metadata": NotebookNode(metadata)})
    if cell.cell_type == "code":
        result.outputs = [_cleaned_output(output) for output in cell.outputs]
    return result


def _cleaned_output(output: NotebookNode) -> NotebookNode:
    # Without a kernel a widget's view is an error message with a random number; the still figure follows it.
    if WIDGET_VIEW not in output.get("data", {}):
        return NotebookNode(output)
    data = {kind: content for kind, content in output.data.items() if kind != WIDGET_VIEW}
    return NotebookNode({**output, "data": NotebookNode(data)})


def _renumber(cells: list[NotebookNode]) -> None:
    count = 0
    for cell in cells:
        if cell.cell_type == "code" and cell.execution_count is not None:
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count


def problems(notebook: NotebookNode, private: list[str]) -> list[str]:
    """Why the notebook should not be committed: warnings on stderr, or a `private` path shown."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            shown = [content for kind, content in output.get("data", {}).items() if kind.startswith("text/")]
            text = "".join(map(str, [output.get("text", ""), *shown]))
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {number} printed to stderr: {text.strip()[:80]!r}")
            elif any(path in text for path in private):
                found.append(f"cell {number} shows a path of this machine: {text.strip()[:80]!r}")
    return found
