{{- /* An Ingress: (dict "root" $ "ingress" values "component" label "name" name "service" name "port" number). */ -}}
{{- define "dask.ingress" -}}
{{- with .ingress -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $.name }}
  labels:
    {{- include "dask.labels" (list $.root $.component) | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .ingressClassName }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    - host: {{ .hostname }}
      http:
        paths:
          - path: /
            pathType: {{ .pathType | default "Prefix" }}
            backend:
              service:
                name: {{ $.service }}
                port:
                  number: {{ $.port }}
  {{- if .tls }}
  tls:
    - hosts:
        - {{ .hostname }}
      {{- with .secretName }}
      secretName: {{ . }}
      {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
