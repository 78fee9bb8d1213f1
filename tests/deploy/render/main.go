// Renders a Helm chart as `helm template` does, with the few functions that our chart uses and nothing but Go's
// standard library, so that the chart is tested where Helm cannot be installed.
//
//	go run tests/deploy/render/main.go CHART < {"release": NAME, "namespace": NS, "appVersion": V, "values": {...}}
//
// Lists and maps are printed as JSON, which is YAML. A function that the chart should not use does not exist here.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"text/template"
)

type request struct {
	Release    string                 `json:"release"`
	Namespace  string                 `json:"namespace"`
	AppVersion string                 `json:"appVersion"`
	Values     map[string]interface{} `json:"values"`
}

// What templates see, by Helm's names.
type scope struct {
	Release map[string]string
	Chart   map[string]string
	Values  map[string]interface{}
}

func main() {
	if err := render(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render() error {
	if len(os.Args) != 2 {
		return errors.New("usage: render CHART < request.json")
	}
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	root := template.New("chart").Option("missingkey=zero")
	root.Funcs(functions(root))
	pages, err := parse(root, filepath.Join(os.Args[1], "templates"))
	if err != nil {
		return err
	}
	data := scope{
		Release: map[string]string{"Name": asked.Release, "Namespace": asked.Namespace},
		Chart:   map[string]string{"AppVersion": asked.AppVersion},
		Values:  asked.Values,
	}
	for _, page := range pages {
		var text bytes.Buffer
		if err := root.ExecuteTemplate(&text, page, data); err != nil {
			return err
		}
		fmt.Printf("---\n%s\n", text.String())
	}
	return nil
}

// Parses all templates; returns the names of those that are pages, in order.
func parse(root *template.Template, folder string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no templates in %s", folder)
	}
	var pages []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(file)
		if _, err := root.New(name).Parse(string(text)); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(name, "_") {
			pages = append(pages, name)
		}
	}
	return pages, nil
}

func functions(root *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var text bytes.Buffer
			err := root.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		"fail": func(message string) (string, error) { return "", errors.New(message) },
		"default": func(fallback, value interface{}) interface{} {
			if value == nil || reflect.ValueOf(value).IsZero() {
				return fallback
			}
			return value
		},
		"toJson": func(value interface{}) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
		"quote": func(value interface{}) string { return strconv.Quote(fmt.Sprint(value)) },
		"nindent": func(spaces int, text string) string {
			pad := "\n" + strings.Repeat(" ", spaces)
			return pad + strings.ReplaceAll(text, "\n", pad)
		},
		"adler32sum": func(text string) string {
			return strconv.FormatUint(uint64(adler32.Checksum([]byte(text))), 10)
		},
		"int": func(value interface{}) int { return int(whole(value)) },
		"add": func(a, b interface{}) int64 { return whole(a) + whole(b) },
		"mul": func(a, b interface{}) int64 { return whole(a) * whole(b) },
		"div": func(a, b interface{}) int64 { return whole(a) / whole(b) },
		"max": func(a, b interface{}) int64 {
			if whole(a) > whole(b) {
				return whole(a)
			}
			return whole(b)
		},
		"min": func(a, b interface{}) int64 {
			if whole(a) < whole(b) {
				return whole(a)
			}
			return whole(b)
		},
	}
}

func whole(value interface{}) int64 {
	number := reflect.ValueOf(value)
	switch number.Kind() {
	case reflect.Int, reflect.Int64:
		return number.Int()
	case reflect.Float64:
		return int64(number.Float())
	}
	return 0
}
