{{/* The labels that all objects carry and selectors look for. */}}
{{- define "trefoil.labels" -}}
app.kubernetes.io/name: trefoil
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The service behind which all nodes are, ready or not. */}}
{{- define "trefoil.peers" -}}
{{ .Release.Name }}-peers
{{- end -}}

{{- define "trefoil.secret" -}}
{{ default (printf "%s-cluster-key" .Release.Name) .Values.clusterKey.secret }}
{{- end -}}

{{/* More than half of the nodes, and three where there are as many. */}}
{{- define "trefoil.bootstrapExpect" -}}
{{- $replicas := int .Values.replicas -}}
{{- $expect := int .Values.bootstrapExpect -}}
{{- if eq $expect 0 -}}
{{- $expect = max (add (div $replicas 2) 1) (min $replicas 3) -}}
{{- end -}}
{{- if and (gt $replicas 1) (le (mul $expect 2) $replicas) -}}
{{- fail (printf "bootstrapExpect %d must exceed half of %d replicas: two halves could begin a cluster each" $expect $replicas) -}}
{{- end -}}
{{- if gt $expect $replicas -}}
{{- fail (printf "bootstrapExpect %d: there are only %d replicas" $expect $replicas) -}}
{{- end -}}
{{ $expect }}
{{- end -}}
