"""Tables, figures and pages: the reproduce grid, fidelity, a report of runs."""
