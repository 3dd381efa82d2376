module example.com/greeter

go 1.26

require (
	github.com/dustin/go-humanize v1.0.1
	github.com/google/uuid v1.6.0
)
