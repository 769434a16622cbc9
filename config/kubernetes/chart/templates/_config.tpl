{{/*
Fails on a key of the config that Helm has read as a truth: its YAML is 1.1, in which `on` without quotes is `true`.
*/}}
{{- define "samekey.quoted" -}}
{{- $at := .at }}
{{- if kindIs "map" .node }}
{{- range $key, $node := .node }}
{{- if has $key (list "true" "false") }}
{{- fail (printf "%s: a key is read as %s: write it in quotes, as in `\"on\": [503]`, since Helm takes on, off, yes and no for truths" $at $key) }}
{{- end }}
{{- include "samekey.quoted" (dict "at" (printf "%s.%s" $at $key) "node" $node) }}
{{- end }}
{{- else if kindIs "slice" .node }}
{{- range $n, $node := .node }}
{{- include "samekey.quoted" (dict "at" (printf "%s[%d]" $at $n) "node" $node) }}
{{- end }}
{{- end }}
{{- end }}
