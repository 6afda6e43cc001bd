from components.mlflow_runs import confusion_matrix_figure


def test_every_cell_shows_its_count_and_its_share_of_the_true_class(tmp_path):
    figure = confusion_matrix_figure([[3, 1], [0, 1200]], ["Clear", "Crystals"], "All")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3\n75.0%", "1\n25.0%", "0\n0.0%", "1,200\n100.0%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Clear", "Crystals"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_class_without_examples_does_not_divide_by_zero():
    figure = confusion_matrix_figure([[0, 0], [0, 2]], ["a", "b"], "All")
    assert figure.axes[0].texts[0].get_text() == "0\n0.0%"


def test_many_classes_get_a_larger_figure_with_slanted_names():
    names = [f"a long name of class {number}" for number in range(10)]
    figure = confusion_matrix_figure([[number == other for other in range(10)] for number in range(10)], names, "All")
    assert tuple(figure.get_size_inches()) > (10, 10)
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {35}


def test_a_class_is_named_as_it_is_though_its_name_looks_like_a_formula(tmp_path):
    names = ["a $x{$", "$5 to $6"]
    figure = confusion_matrix_figure([[1, 0], [0, 2]], names, "All")
    figure.savefig(tmp_path / "figure.svg")
    texts = [label for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for label in axis.get_ticklabels()]
    assert [text.get_text() for text in texts] == names * 2
    assert not any(text.get_parse_math() for text in texts)
