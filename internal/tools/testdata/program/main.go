// Command program calls a function that testdata/vulndb knows as vulnerable.
package main

import "fmt"

func main() { fmt.Println() }
