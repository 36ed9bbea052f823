"""Executed notebooks made fit to be committed: what papermill and the clock left goes, pictures stay."""

from nbformat import NotebookNode, from_dict, validate

INJECTED = "injected-parameters"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The notebook, changed in place: without injected cells, timings and widget state, execution counts 1, 2, 3 ...

    The cell tagged `parameters` stays as it is. Raises nbformat's ValidationError for what is no notebook.
    """
    language = {"name": "python", **notebook.metadata.get("language_info", {})}
    language.pop("version", None)  # of the machine, not of the notebook
    notebook.metadata = from_dict({"kernelspec": KERNELSPEC, "language_info": language})
    notebook.cells = [cell for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")  # papermill adds an empty list to every cell, and the time
        cell.metadata = from_dict({"tags": tags} if tags else {})
        for output in cell.get("outputs", []):
            # Without a kernel a widget's view is an error message with a random number; the still figure follows it.
            output.get("data", {}).pop(WIDGET_VIEW, None)
    executed = [cell for cell in notebook.cells if cell.get("execution_count") is not None]
    for count, cell in enumerate(executed, start=1):
        for node in (cell, *cell.outputs):
            if "execution_count" in node:
                node.execution_count = count
    validate(notebook)
    return notebook
