"""The curated schema of ExampleGen's output, as data of this package, and the component that hands it to the graph."""
