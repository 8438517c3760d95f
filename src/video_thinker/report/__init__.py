"""The report: evaluation and training folders as one self-contained HTML page.

    RUN folders -> runs.py -> EvalRun, TrainingRun
                   scored.py -> one `Result` per model, variant and split: figures, and every prediction graded
                   strips.py -> one small JPEG per video, its frames side by side on the time axis
                   samples.py, curves.py -> what the page's script draws, as JSON
                   page.py -> page.html.jinja, page.css, charts.js, samples.js, keys.js -> the page
                   command.py -> `video-thinker report`

The folders are only read: a report of a running evaluation does not disturb it.
"""
