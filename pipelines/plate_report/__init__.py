"""One HTML file from scored images: plate maps, how scores changed, ranked images; see docs/plates.md.

`collector` gathers what `pipelines.prediction` scores, `layout` and `time_points` say where and when, `thumbnails` and
`saliency` make pictures, `page` puts all into `template.html.jinja` with its style and scripts.
"""
