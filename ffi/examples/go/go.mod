module example.com/two_hosts

go 1.19
